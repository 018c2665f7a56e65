"""What the user says about the data: one frozen dataclass for flags, YAML and Python."""

from dataclasses import dataclass
from typing import Literal

from amiss_export.errors import BadInput
from amiss_training.data.named import NAMED

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
DEFAULT_NORMAL_CLASS = {  # by loader, or by the name of the data set
    "mvtec": "good",
    "breast-cancer": "benign",
    **{name: known.normal_class for name, known in NAMED.items()},
}


@dataclass(frozen=True)
class DataOptions:
    """How to read the data, which rows are normal, and how the normal rows are divided.

    Args:
        data_set: Public data set by name, as training/README.md lists them; the path to the data
            then says where its files lie or shall be put.
        loader: How to read the data; auto looks at the file or folder itself.
        label_column: Column that holds the label; without it every row of a table is normal.
        normal_class: Rows with this label are normal, all others anomalies (default 0; good for
            MVTec folders, normal for KDD99, benign for breast-cancer; training/README.md has those
            of the data sets by name).
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
        contamination: Share of the training rows that are anomalies, taken out of the test's.
        out_data: Path or name of other images, which are the anomalies; every image of the data
            itself is then normal.
        attack_families: Label KDD99's rows with the family of the attack (dos, probe, r2l, u2r).
        test_prevalence: Share of anomalies in test; rows too many for it are left out at random;
            unset = all stay.
        oracle_flag_share: Also report what flagging this share of the test rows, those with the
            highest scores, would give: an oracle, for comparison with papers.
        keep_anomalies_out: Keep anomalies out of training, early stop and calibration; false only
            for papers that divide all rows alike.
        keep_repeats_together: Give equal rows one role; false only for papers that test on rows
            they trained on.
        official_split: Keep the test part that a named data set brings out of training; otherwise
            all its images are pooled and divided by the shares.
        celeba_attribute: Attribute that labels CelebA's images "with" or "without" it; unset =
            they have no labels.
        max_rows: Use at most this many rows, drawn at random before anything else; unset = all.
    """

    data_set: str | None = None
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
    contamination: float = 0.0
    out_data: str | None = None
    attack_families: bool = False
    test_prevalence: float | None = None
    oracle_flag_share: float | None = None
    keep_anomalies_out: bool = True
    keep_repeats_together: bool = True
    official_split: bool = False
    celeba_attribute: str | None = None
    max_rows: int | None = None

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, early-stop and calibration rows among the normals."""
        return self.train_share, self.early_stop_share, self.calibration_share


def check_options(options: DataOptions) -> None:
    """Nothing; raises BadInput when options contradict each other or lie out of range."""
    _check_contradictions(options)
    check_named(options)
    for name in (
        *("train_share", "early_stop_share", "calibration_share"),
        *("test_prevalence", "oracle_flag_share"),
    ):
        share = getattr(options, name)
        if share is not None and not 0 < share < 1:
            raise BadInput(f"{name} must lie between 0 and 1, got {share}")
    if not 0 <= options.contamination < 1:
        raise BadInput(f"contamination must be 0 or a share below 1, got {options.contamination}")
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


def check_named(options: DataOptions) -> None:
    """Nothing; raises BadInput for an unknown data set and for options that need another one."""
    name = options.data_set
    if name is not None and name not in NAMED:
        raise BadInput(f"no data set {name!r}; there are: {', '.join(sorted(NAMED))}")
    if name is not None and options.loader != "auto":
        raise BadInput(
            f"data_set {name!r} and loader {options.loader!r} exclude each other; give one"
        )
    if options.official_split and (name is None or not NAMED[name].holds_images):
        raise BadInput("official_split is for data sets of images by name; give data_set")
    if options.celeba_attribute is not None and name != "celeba":
        raise BadInput(
            f"celeba_attribute {options.celeba_attribute!r} is for data_set 'celeba', got {name!r}"
        )


def _check_contradictions(options: DataOptions) -> None:
    named = [
        f"{name} {getattr(options, name)!r}"
        for name in ("normal_class", "anomaly_class", "out_data")
        if getattr(options, name) is not None
    ]
    if len(named) > 1:
        raise BadInput(f"{' and '.join(named)} exclude each other; give one")
    if options.contamination and not options.keep_anomalies_out:
        raise BadInput(
            f"contamination {options.contamination:g} decides how many anomalies are trained on, "
            "keep_anomalies_out false leaves it to chance; give one"
        )
