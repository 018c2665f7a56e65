"""Prepare tables: protocols, from a file's labels to roles, scaling and notes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from amiss_export.bundle import TableInput
from amiss_export.errors import BadInput
from amiss_export.graph import TableFeatures
from amiss_training.data import DataOptions, Prepared, kdd99, load_labelled, prepare
from amiss_training.data.splits import row_hashes

RNG = np.random.default_rng(4)
ATTACKS = ("normal", "back", "smurf", "satan", "guess_passwd", "rootkit")


def write_kdd99(path: Path, n: int = 600, *, distinct: int = 10_000) -> Path:
    """Raw KDD99 lines: bytes up to 1e9, seven categories, an attack with its dot."""
    lines = []
    for i in range(n):
        rng = np.random.default_rng(i % distinct)
        cells = {name: f"{rng.random():.4f}" for name in kdd99.FEATURES}
        cells |= {"src_bytes": str(rng.integers(10**9)), "land": "0", "logged_in": str(i % 2)}
        cells |= {"protocol_type": rng.choice(["tcp", "udp"]), "flag": rng.choice(["SF", "S0"])}
        cells |= {"service": f"s{rng.integers(5)}", "is_host_login": "0", "is_guest_login": "0"}
        attack = ATTACKS[rng.integers(len(ATTACKS))]
        lines.append(",".join([*(str(cells[name]) for name in kdd99.FEATURES), f"{attack}."]))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_numbers(path: Path, n: int = 400, *, anomalies: int = 60) -> Path:
    """Three columns of numbers on scales a million apart, and the label y."""
    x = RNG.normal(size=(n, 3)) * [1, 1e3, 1e6]
    lines = [f"{a:.6f},{b:.4f},{c:.1f},{int(i < anomalies)}" for i, (a, b, c) in enumerate(x)]
    path.write_text("\n".join(["a,b,c,y", *lines]) + "\n")
    return path


def hashes_by_role(found: Prepared) -> dict[str, set[int]]:
    hashes = row_hashes(found.x)
    return {role: set(hashes[index].tolist()) for role, index in found.roles.items()}


LABELLED = DataOptions(label_column="y")


def test_families_stand_in_for_attacks(tmp_path: Path) -> None:
    """With attack_families the labels are five, one of them the anomaly, 'back' among dos (D3)."""
    path = write_kdd99(tmp_path / "k.csv")
    options = DataOptions(attack_families=True, anomaly_class="dos")
    found = prepare(path, options, seed=0)
    attacks = prepare(path, DataOptions(), seed=0).label
    assert set(found.label) == {"normal", "dos", "probe", "r2l", "u2r"}
    np.testing.assert_array_equal(found.is_anomaly, np.isin(attacks, ["back", "smurf"]))
    assert (attacks == "back").any()


def test_families_keep_their_categories(tmp_path: Path) -> None:
    """The seven symbolic columns stay categories, numbers though four of them look like."""
    options = DataOptions(attack_families=True, anomaly_class="u2r")
    found = prepare(write_kdd99(tmp_path / "k.csv"), options, seed=0)
    assert isinstance(found.input, TableInput)
    categories = {column.name for column in found.input.columns if column.kind == "category"}
    assert categories == {"protocol_type", "service", "flag", "logged_in"}
    dropped = {column.name for column in found.input.dropped}
    assert dropped == {"land", "is_host_login", "is_guest_login"}, "constant here"


def test_families_of_another_table_are_refused(tmp_path: Path) -> None:
    """attack_families on a table that is not KDD99's names the file."""
    options = DataOptions(label_column="y", attack_families=True)
    with pytest.raises(BadInput, match=r"t\.csv: attack_families is for KDD99"):
        prepare(write_numbers(tmp_path / "t.csv"), options, seed=0)


def test_load_labelled_gives_families_too(tmp_path: Path) -> None:
    """Rows read again for an existing detector carry the labels that it was trained with."""
    path = write_kdd99(tmp_path / "k.csv")
    options = DataOptions(attack_families=True, anomaly_class="dos")
    found = prepare(path, options, seed=0)
    _, label, _ = load_labelled(path, found.input, attack_families=True)
    assert label is not None
    assert label.tolist() == found.label.tolist()


def test_paper_protocol_tells_that_it_leaks(tmp_path: Path) -> None:
    """KDD99's flip with repeats on both sides states the share of test rows that leaked (D9)."""
    path = write_kdd99(tmp_path / "k.csv", distinct=150)
    options = DataOptions(
        anomaly_class="normal",
        keep_repeats_together=False,
        train_share=0.4,
        early_stop_share=0.05,
        calibration_share=0.05,
        test_prevalence=0.2,
    )
    found = prepare(path, options, seed=0)
    assert not found.is_anomaly[found.label != "normal"].any()
    hashes = row_hashes(found.x)
    leaked = np.isin(hashes[found.roles.test], hashes[found.roles.train]).mean()
    assert leaked > 0.3
    told = "paper protocol: equal rows are not kept together: "
    assert f"{told}{leaked:.1%} of the test rows also occur in training" in found.notes
    assert found.is_anomaly[found.roles.test].mean() == pytest.approx(0.2, abs=0.01)
    assert "450 of 600 rows (75.0%) repeat an earlier one" in found.notes


def test_test_normals_were_never_trained_on(tmp_path: Path) -> None:
    """Unless a paper asks for it no content plays two roles, three quarters repeating (D8)."""
    path = write_kdd99(tmp_path / "k.csv", distinct=150)
    for seed in range(4):
        found = hashes_by_role(prepare(path, DataOptions(), seed=seed))
        assert sum(map(len, found.values())) == len(set.union(*found.values()))


def test_contaminated_tables_leak_nothing(tmp_path: Path) -> None:
    """Anomalies that are trained on do not come back in test, equal rows included."""
    path = write_kdd99(tmp_path / "k.csv", distinct=150)
    found = prepare(path, DataOptions(contamination=0.1), seed=0)
    trained = found.is_anomaly[found.roles.train]
    assert trained.mean() == pytest.approx(0.1, abs=0.03)
    assert any(
        f"contaminated training: {trained.sum()} of {len(trained)} rows" in note
        for note in found.notes
    )
    roles = hashes_by_role(found)
    assert not roles["train"] & roles["test"]


def test_a_mixed_half_has_calibration_rows_of_both_kinds(tmp_path: Path) -> None:
    """Arrhythmia's protocol leaves anomalies where chance puts them, and says where that is."""
    path = write_numbers(tmp_path / "t.csv", n=452, anomalies=66)
    options = DataOptions(
        label_column="y",
        keep_anomalies_out=False,
        train_share=0.4,
        early_stop_share=0.05,
        calibration_share=0.05,
        oracle_flag_share=0.15,
    )
    found = prepare(path, options, seed=0)
    assert found.split_rows["test"] == 226
    count = found.is_anomaly[found.roles.train].sum()
    assert count == pytest.approx(0.146 * 181, abs=12)
    note = next(note for note in found.notes if "not kept out" in note)
    assert f"{count} of 181 rows" in note
    assert any("top 15.0% of the test scores: an oracle" in note for note in found.notes)


@pytest.mark.parametrize("role", ["early_stop", "calibration", "test"])
def test_scaling_statistics_come_from_training_rows_alone(tmp_path: Path, role: str) -> None:
    """A wild value in a row that is not trained on changes no statistic of the scaling (D4)."""
    path = write_numbers(tmp_path / "t.csv")
    before = prepare(path, LABELLED, seed=0)
    lines = path.read_text().splitlines()
    row = int(getattr(before.roles, role)[0])
    lines[1 + row] = f"1e9,-1e9,1e12,{before.label[row]}"
    path.write_text("\n".join(lines) + "\n")
    after = prepare(path, LABELLED, seed=0)
    assert not np.array_equal(before.x, after.x)
    scalings = [scaling(found).state_dict() for found in (before, after)]
    assert len(scalings[0]) > 0
    assert scalings[0].keys() == scalings[1].keys()
    for name, values in scalings[0].items():
        torch.testing.assert_close(values, scalings[1][name], rtol=0, atol=0)


def test_features_are_scaled_by_default(tmp_path: Path) -> None:
    """Columns a million apart reach the detector on one scale, KDD99's bytes too (D9)."""
    for path in (write_numbers(tmp_path / "t.csv"), write_kdd99(tmp_path / "k.csv")):
        options = LABELLED if path.name == "t.csv" else DataOptions()
        found = prepare(path, options, seed=0)
        features = scaling(found)(torch.from_numpy(found.x[found.roles.train]))
        assert float(features.abs().max()) < 20
        assert np.abs(found.x).max() > 1e5


def scaling(found: Prepared) -> TableFeatures:
    assert isinstance(found.input, TableInput)
    return TableFeatures(found.input, found.x[found.roles.train])


@pytest.mark.shared
def test_kdd99_dagmm_has_the_papers_sizes(shared_data: Path) -> None:
    """Half of 396,743 attacks is seen, the other half tested beside 20 % normal connections."""
    options = DataOptions(
        anomaly_class="normal",
        keep_repeats_together=False,
        train_share=0.4,
        early_stop_share=0.05,
        calibration_share=0.05,
        test_prevalence=0.2,
    )
    found = prepare(shared_data / "kdd99" / "kddcup.data_10_percent.gz", options, seed=42)
    seen = sum(found.split_rows[role] for role in ("train", "early_stop", "calibration"))
    anomalies = int(found.is_anomaly[found.roles.test].sum())
    assert seen + found.split_rows["test"] - anomalies == 396_743
    assert seen == pytest.approx(198_361, abs=11), "the paper draws rows, we draw exactly half"
    assert anomalies == pytest.approx(0.2 * found.split_rows["test"], abs=1)
    assert any("68." in note and "also occur in training" in note for note in found.notes)


@pytest.mark.parametrize("option", [{"image_size": 32}, {"channels": 1}])
def test_a_table_has_no_pixels_to_set(tmp_path: Path, option: dict[str, int]) -> None:
    """An option for images is refused by its name, not passed over."""
    path = write_numbers(tmp_path / "t.csv")
    with pytest.raises(BadInput, match=f"{next(iter(option))} is for images"):
        prepare(path, DataOptions(label_column="y", **option), seed=0)  # type: ignore[arg-type]  # literals in a loop
