"""A file of verdicts that is written chunk by chunk, appears whole, and can be gone on with.

OUT.part        the rows so far: JSON lines for .jsonl, else CSV (Parquet is made of it at the end)
OUT.part.json   which detector and input they belong to, and how many bytes of OUT.part are whole
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from amiss_cli.verdict_source import Answer
from amiss_export.errors import BadInput

SUFFIXES = (".csv", ".parquet", ".jsonl")
VERDICTS = ("score", "normalized_score", "p_value", "is_anomaly")

Key = Literal["row", "path"]
Format = Callable[[Key, Sequence[int] | Sequence[str], Answer], str]


@dataclass(frozen=True)
class Totals:
    """What has been scored so far."""

    rows: int = 0
    flagged: int = 0
    unseen_categories: int = 0
    missing_values: int = 0

    def plus(self, answer: Answer) -> "Totals":
        """The totals with one more chunk."""
        return Totals(
            self.rows + len(answer.score),
            self.flagged + int(answer.is_anomaly.sum()),
            self.unseen_categories + answer.unseen_categories,
            self.missing_values + answer.missing_values,
        )


class VerdictFile:
    """OUT while it is being written. totals: what is safely on disk."""

    def __init__(
        self, output: Path, stream: BinaryIO, key: Key, belongs_to: dict[str, Any], totals: Totals
    ) -> None:
        self.totals = totals
        self._output, self._stream, self._key = output, stream, key
        self._belongs_to = belongs_to
        self._format = to_jsonl if output.suffix == ".jsonl" else to_csv
        if totals.rows == 0 and output.suffix != ".jsonl":
            stream.write(csv_header(key).encode())

    def append(self, keys: Sequence[int] | Sequence[str], answer: Answer) -> None:
        """Put the rows on disk, then say in the sidecar that they are whole."""
        self._stream.write(self._format(self._key, keys, answer).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.totals = self.totals.plus(answer)
        state = {
            "belongs_to": self._belongs_to,
            "bytes": self._stream.tell(),
            "totals": asdict(self.totals),
        }
        sidecar = _beside(self._output, ".part.json")
        new = _beside(self._output, ".part.json.new")
        new.write_text(json.dumps(state, indent=2))
        _move(new, sidecar)

    def finish(self) -> None:
        """Let the whole file appear under its name, replacing what was there."""
        part = _beside(self._output, ".part")
        if self._output.suffix == ".parquet":
            whole = _beside(self._output, ".part.parquet")
            csv_to_parquet(part, whole, self._key)
            _move(whole, self._output)
            part.unlink()
        else:
            _move(part, self._output)
        _beside(self._output, ".part.json").unlink(missing_ok=True)


def check_output(output: Path) -> Path:
    """The path itself, when verdicts can be written there."""
    if output.suffix not in SUFFIXES:
        raise BadInput(f"--output must end in {', '.join(SUFFIXES)}, got {output}")
    if not output.parent.is_dir():
        raise BadInput(f"--output {output}: the folder {output.parent} does not exist")
    return output


@contextmanager
def open_verdict_file(
    output: Path, *, key: Key, belongs_to: dict[str, Any], resume: bool
) -> Iterator[VerdictFile]:
    """The file, begun or gone on with. Leaves OUT.part behind when the block raises.

    belongs_to: detector, version, input, ...: with `resume` it must be what the part file was
    begun with, else BadInput. Nothing to resume is a beginning.
    """
    part = _beside(output, ".part")
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"{part}: another amiss score is writing it; wait or end it") from error
        whole_bytes, totals = _state(output, part, belongs_to) if resume else (0, Totals())
        if whole_bytes == 0:
            _beside(output, ".part.json").unlink(missing_ok=True)
        stream.truncate(whole_bytes)  # a torn last line goes
        stream.seek(whole_bytes)
        yield VerdictFile(output, stream, key, belongs_to, totals)


def csv_header(key: Key) -> str:
    """The first line of a CSV file of verdicts."""
    return ",".join((key, *VERDICTS)) + "\n"


def to_csv(key: Key, keys: Sequence[int] | Sequence[str], answer: Answer) -> str:
    """One line a row, without the header; numbers as the shortest text that reads back alike."""
    shown: Iterable[object] = map(_quoted, keys) if key == "path" else keys
    return "".join(
        f"{k},{s},{n},{p},{a}\n" for k, s, n, p, a in zip(shown, *_texts(answer), strict=True)
    )


def to_jsonl(key: Key, keys: Sequence[int] | Sequence[str], answer: Answer) -> str:
    """One JSON object a row."""
    return "".join(
        f'{{"{key}": {json.dumps(k)}, "score": {s}, "normalized_score": {n}, "p_value": {p}, '
        f'"is_anomaly": {a}}}\n'
        for k, s, n, p, a in zip(keys, *_texts(answer), strict=True)
    )


def csv_to_parquet(source: Path, target: Path, key: Key) -> None:
    """Write the CSV file of verdicts as Parquet, block by block, and sync it."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    types = [pa.int64() if key == "row" else pa.string(), *[pa.float32()] * 3, pa.bool_()]
    schema = pa.schema(list(zip((key, *VERDICTS), types, strict=True)))
    with (
        pyarrow.csv.open_csv(
            source,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=schema, strings_can_be_null=False
            ),
        ) as reader,
        pyarrow.parquet.ParquetWriter(target, schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)


def _texts(answer: Answer) -> list[list[str]]:
    numbers = (answer.score, answer.normalized_score, answer.p_value)
    flags = ["true" if flag else "false" for flag in answer.is_anomaly.tolist()]
    return [*(column.astype(str).tolist() for column in numbers), flags]


def _quoted(path: object) -> str:
    """The path as one CSV field; bytes of a file name that are no UTF-8 show as \\udcXX."""
    text = str(path).encode(errors="backslashreplace").decode()
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _state(output: Path, part: Path, belongs_to: dict[str, Any]) -> tuple[int, Totals]:
    """Whole bytes of the part file and what they hold; (0, nothing) when there is none to go on."""
    sidecar = _beside(output, ".part.json")
    if not sidecar.exists():
        return 0, Totals()
    try:
        state = json.loads(sidecar.read_text())
        found, whole_bytes, totals = state["belongs_to"], state["bytes"], Totals(**state["totals"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{sidecar}: cannot be read: {error}; delete it to begin anew") from error
    for what, value in belongs_to.items():
        if found.get(what) != value:
            raise BadInput(
                f"{part}: begun with {what} {found.get(what)!r}, asked to go on with {value!r}; "
                "ask for the same, or leave out --resume to begin anew"
            )
    if part.stat().st_size < whole_bytes:
        raise BadInput(f"{part}: shorter than {sidecar} says; leave out --resume to begin anew")
    return whole_bytes, totals


def _beside(output: Path, suffix: str) -> Path:
    return output.with_name(output.name + suffix)


def _move(source: Path, target: Path) -> None:
    """Rename, with the contents on disk before and the name after."""
    _sync(source)
    source.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
