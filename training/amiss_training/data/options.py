"""What the user says about the data: one frozen dataclass for flags, YAML and Python."""

from dataclasses import dataclass
from typing import Literal

from amiss_export.errors import BadInput

Loader = Literal[
    "auto",
    "table",
    "idx",
    "npz",
    "mat",
    "image-folder",
    "mvtec",
    "kdd99",
    "digits",
    "breast-cancer",
]
DEFAULT_NORMAL_CLASS = {"mvtec": "good", "kdd99": "normal", "breast-cancer": "benign"}


@dataclass(frozen=True)
class DataOptions:
    """How to read the data, which rows are normal, and how the normal rows are divided.

    Args:
        loader: How to read the data; auto looks at the file or folder itself.
        label_column: Column that holds the label; without it every row of a table is normal.
        normal_class: Rows with this label are normal, all others anomalies (default 0; good for
            MVTec folders, normal for KDD99, benign for breast-cancer).
        anomaly_class: Rows with this label are anomalies, all others normal; excludes normal_class.
        category_columns: Columns to read as categories although they look like numbers.
        missing: impute accepts empty cells, refuse makes one an error.
        deduplicate: Drop rows that repeat an earlier row and its label before dividing.
        image_size: Side in pixels of the square that images are resized to; unset = the size of
            the first image.
        channels: 1 reads images as grey, 3 as colour; unset = as the first image is.
        train_share: Share of the normal rows to train on.
        early_stop_share: Share of the normal rows that decide when training stops.
        calibration_share: Share of the normal rows that set the threshold; what is left of the
            normal rows, and every anomaly, is the test.
        max_rows: Use at most this many rows, drawn at random before anything else; unset = all.
    """

    loader: Loader = "auto"
    label_column: str | None = None
    normal_class: str | None = None
    anomaly_class: str | None = None
    category_columns: tuple[str, ...] = ()
    missing: Literal["impute", "refuse"] = "impute"
    deduplicate: bool = False
    image_size: int | None = None
    channels: Literal[1, 3] | None = None
    train_share: float = 0.6
    early_stop_share: float = 0.1
    calibration_share: float = 0.15
    max_rows: int | None = None

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, early-stop and calibration rows among the normals."""
        return self.train_share, self.early_stop_share, self.calibration_share


def check_options(options: DataOptions) -> None:
    """Nothing; raises BadInput when options contradict each other or lie out of range."""
    if options.normal_class is not None and options.anomaly_class is not None:
        raise BadInput(
            f"normal_class {options.normal_class!r} and anomaly_class {options.anomaly_class!r} "
            "exclude each other; give one"
        )
    names = ("train_share", "early_stop_share", "calibration_share")
    for name, share in zip(names, options.shares, strict=True):
        if not 0 < share < 1:
            raise BadInput(f"{name} must lie between 0 and 1, got {share}")
    if sum(options.shares) > 1 + 1e-9:
        raise BadInput(
            f"train_share + early_stop_share + calibration_share must be at most 1, "
            f"got {sum(options.shares):g}"
        )
    for name, count in (("image_size", options.image_size), ("max_rows", options.max_rows)):
        if count is not None and count < 1:
            raise BadInput(f"{name} must be >= 1, got {count}")
    if options.channels not in (None, 1, 3):
        raise BadInput(f"channels must be 1 or 3, got {options.channels}")
