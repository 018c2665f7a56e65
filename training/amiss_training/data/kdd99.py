"""KDD Cup 1999: the names its raw file lacks, and what family each attack belongs to.

Source: the UCI KDD archive, kddcup.names and training_attack_types. The first line of the latter
is data (`back dos`), not a header: a reader that skips it loses 2,203 rows.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.data.columns import some

LABEL = "label"
NORMAL = "normal"
FEATURES = (
    *("duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land"),
    *("wrong_fragment", "urgent", "hot", "num_failed_logins", "logged_in", "num_compromised"),
    *("root_shell", "su_attempted", "num_root", "num_file_creations", "num_shells"),
    *("num_access_files", "num_outbound_cmds", "is_host_login", "is_guest_login", "count"),
    *("srv_count", "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate"),
    *("same_srv_rate", "diff_srv_rate", "srv_diff_host_rate", "dst_host_count"),
    *("dst_host_srv_count", "dst_host_same_srv_rate", "dst_host_diff_srv_rate"),
    *("dst_host_same_src_port_rate", "dst_host_srv_diff_host_rate", "dst_host_serror_rate"),
    *("dst_host_srv_serror_rate", "dst_host_rerror_rate", "dst_host_srv_rerror_rate"),
)
COLUMNS = (*FEATURES, LABEL)
CATEGORIES = (
    *("protocol_type", "service", "flag", "land", "logged_in", "is_host_login", "is_guest_login"),
)
FAMILY = {
    NORMAL: NORMAL,
    **dict.fromkeys(("back", "land", "neptune", "pod", "smurf", "teardrop"), "dos"),
    **dict.fromkeys(("ipsweep", "nmap", "portsweep", "satan"), "probe"),
    **dict.fromkeys(
        ("ftp_write", "guess_passwd", "imap", "multihop", "phf", "spy", "warezclient"), "r2l"
    ),
    "warezmaster": "r2l",
    **dict.fromkeys(("buffer_overflow", "loadmodule", "perl", "rootkit"), "u2r"),
}


def looks_like(first_line: Sequence[str]) -> bool:
    """Whether the fields of a file's first line are one of raw KDD99: 42, the last with a dot."""
    return len(first_line) == len(COLUMNS) and first_line[-1].strip().endswith(".")


def without_dots(table: pa.Table) -> pa.Table:
    """The table with `normal.` as `normal` in its label column, if it has one."""
    if LABEL not in table.column_names:
        return table
    plain = pc.utf8_rtrim(pc.utf8_trim_whitespace(table[LABEL]), ".")
    return table.set_column(table.column_names.index(LABEL), LABEL, plain)


def families_of(label: NDArray[np.str_]) -> NDArray[np.str_]:
    """The family of each attack, (n,), "normal" staying itself; BadInput naming unknown ones."""
    attacks, code = np.unique(label, return_inverse=True)
    unknown = [str(attack) for attack in attacks if attack not in FAMILY]
    if unknown:
        raise BadInput(
            f"no family is known for the attack(s) {some(unknown)}; known are those of "
            "training_attack_types; leave attack_families out to keep the attacks' own names"
        )
    return np.array([FAMILY[str(attack)] for attack in attacks])[code]
