"""KDD99: the constants, and the families of its attacks, 'back' included (defect D3)."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from amiss_export.errors import BadInput
from amiss_training.data import kdd99


def test_columns_are_41_and_a_label_without_repeats() -> None:
    """The file has 42 fields, seven of which are categories."""
    assert len(set(kdd99.COLUMNS)) == 42
    assert len(set(kdd99.CATEGORIES) & set(kdd99.FEATURES)) == 7


def test_only_the_last_field_with_a_dot_is_kdd() -> None:
    """42 fields without the dot, or 41 with it, are another table."""
    assert kdd99.looks_like(["0"] * 41 + ["normal."])
    assert not kdd99.looks_like(["0"] * 41 + ["normal"])
    assert not kdd99.looks_like(["0"] * 40 + ["normal."])


def test_only_the_label_loses_its_dot() -> None:
    """The trailing dot goes from the label and from nothing else."""
    table = pa.table({"service": ["a."], kdd99.LABEL: ["smurf. "]})
    assert kdd99.without_dots(table).to_pydict() == {"service": ["a."], "label": ["smurf"]}


def test_every_row_gets_its_family() -> None:
    """Families follow their rows; normal stays normal."""
    label = np.array(["smurf", "normal", "back", "perl", "smurf"])
    assert kdd99.families_of(label).tolist() == ["dos", "normal", "dos", "u2r", "dos"]


def test_an_attack_without_a_family_is_named() -> None:
    """The attacks that only the corrected test file has are refused by name."""
    with pytest.raises(BadInput, match=r"no family is known for the attack\(s\) 'mscan'"):
        kdd99.families_of(np.array(["normal", "mscan"]))


@pytest.mark.shared
def test_families_agree_with_the_published_list(shared_data: Path) -> None:
    """The code names the 22 attacks of the published list, its first line `back dos` included."""
    text = (shared_data / "kdd99" / "training_attack_types").read_text()
    attacks = {name: family for name, family in kdd99.FAMILY.items() if name != kdd99.NORMAL}
    assert dict(line.split() for line in text.splitlines() if line.strip()) == attacks
    assert len(attacks) == 22


@pytest.mark.shared
def test_columns_agree_with_the_published_names(shared_data: Path) -> None:
    """Names and symbolic columns are those of kddcup.names, but for its own slips.

    kddcup.names calls is_host_login, is_guest_login, land and logged_in symbolic too.
    """
    lines = (shared_data / "kdd99" / "kddcup.names").read_text().splitlines()[1:]
    named = [line.split(":")[0] for line in lines if ":" in line]
    symbolic = {line.split(":")[0] for line in lines if "symbolic" in line}
    assert tuple(named) == kdd99.FEATURES
    assert symbolic == set(kdd99.CATEGORIES)
