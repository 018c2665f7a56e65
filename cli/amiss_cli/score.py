"""`amiss score`: verdicts for a table or a folder of images, by a bundle or by a service."""

import argparse
import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from amiss_cli.usage import UsageParser
from amiss_export.errors import AmissError, BadInput

if TYPE_CHECKING:
    from amiss_cli.verdict_file import Totals, VerdictFile
    from amiss_cli.verdict_source import Answer, Rows, VerdictSource
    from amiss_export.bundle import ImageInput, TableInput

TABLE_ROWS, IMAGE_ROWS = 4096, 64

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Chunk:
    """Rows of the input in order. keys: what names each of them, a number or a path."""

    keys: Sequence[Any]
    rows: "Rows"

    def after(self, n: int) -> "Chunk":
        """The chunk without its first n rows."""
        if isinstance(self.rows, dict):
            return Chunk(self.keys[n:], {name: cells[n:] for name, cells in self.rows.items()})
        return Chunk(self.keys[n:], self.rows[n:])  # type: ignore[index]  # an array


def main(argv: list[str]) -> int:
    """Exit code of `amiss score ARGV`. Raises AmissError."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    started = time.monotonic()
    try:
        with _source(arguments) as source:
            totals, resumed_rows = _run(source, arguments)
    except BrokenPipeError:
        raise  # the reader of our output went away: nothing failed
    except OSError as error:
        raise AmissError(str(error)) from error
    print(_summary(totals, resumed_rows, source, time.monotonic() - started), file=sys.stderr)
    return 0


def _parser() -> UsageParser:
    parser = UsageParser(
        prog="amiss score",
        description="Score every row of a table, or every image of a folder. Output columns, in "
        "input order: row (0-based) or path, score, normalized_score, p_value, is_anomaly.",
    )
    add = parser.add_argument
    add("path", metavar="PATH", type=Path, help="table file, IDX/NPZ file or folder of images")
    add("--detector", required=True, metavar="NAME[@VERSION|@LABEL]", help="who answers")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--models", type=Path, default=Path("models"), help="folder of bundles (default: models)"
    )
    where.add_argument("--address", metavar="HOST:PORT", help="a service's gRPC address instead")
    add("--token-file", type=Path, help="file with the service's token (default: AMISS_TOKEN)")
    add("--output", type=Path, help=".csv, .parquet or .jsonl file (default: CSV on stdout)")
    add("--resume", action="store_true", help="go on with what an ended run left in OUTPUT.part")
    add(
        "--batch-rows",
        type=int,
        metavar="N",
        help=f"rows read at a time (default: {TABLE_ROWS} of a table, {IMAGE_ROWS} images)",
    )
    add("--device", default="auto", help="auto, cpu or cuda:0, without --address (default: auto)")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    output: Path | None = arguments.output
    if arguments.resume and output is None:
        raise BadInput("--resume needs --output: what is there to go on with?")
    if arguments.token_file and not arguments.address:
        raise BadInput("--token-file is for a service; add --address HOST:PORT")
    if arguments.batch_rows is not None and arguments.batch_rows < 1:
        raise BadInput(f"--batch-rows must be >= 1, got {arguments.batch_rows}")
    if not arguments.path.exists():
        raise BadInput(f"{arguments.path}: no such file or folder")
    if output is None:
        return
    from amiss_cli.verdict_file import check_output

    check_output(output)
    if output.resolve().is_relative_to(arguments.path.resolve()):
        raise BadInput(
            f"--output {output} lies in the input {arguments.path}; choose another place"
        )


@contextmanager
def _source(arguments: argparse.Namespace) -> Iterator["VerdictSource"]:
    from amiss_cli.verdict_source import BundleSource, ServiceSource, open_client

    if not arguments.address:
        yield BundleSource(arguments.models, arguments.detector, device=arguments.device)
        return
    with open_client(arguments.address, arguments.token_file) as client:
        yield ServiceSource(client, arguments.detector)


def _run(source: "VerdictSource", arguments: argparse.Namespace) -> tuple["Totals", int]:
    """Totals of the whole input, and how many rows of it an earlier run had scored."""
    path, output = arguments.path, arguments.output
    batch_rows = arguments.batch_rows or (TABLE_ROWS if source.spec.kind == "table" else IMAGE_ROWS)
    if output is None:
        return _print_verdicts(source, path, batch_rows=batch_rows), 0
    from amiss_cli.verdict_file import open_verdict_file

    belongs_to = {
        "detector": f"{source.name}@{source.version}",
        "threshold": source.threshold,
        "input": fingerprint(path),
    }
    with open_verdict_file(
        output, key=_key(source), belongs_to=belongs_to, resume=arguments.resume
    ) as file:
        resumed_rows = file.totals.rows
        with _hint(file, output):
            for chunk, answer in answers_of(source, path, batch_rows=batch_rows, skip=resumed_rows):
                file.append(chunk.keys, answer)
            file.finish()
        return file.totals, resumed_rows


def _print_verdicts(source: "VerdictSource", path: Path, *, batch_rows: int) -> "Totals":
    from amiss_cli.verdict_file import Totals, csv_header, to_csv

    totals, key = Totals(), _key(source)
    header = csv_header(key)
    for chunk, answer in answers_of(source, path, batch_rows=batch_rows, skip=0):
        sys.stdout.write(header + to_csv(key, chunk.keys, answer))
        header = ""
        totals = totals.plus(answer)
    sys.stdout.flush()
    return totals


def _key(source: "VerdictSource") -> Literal["row", "path"]:
    return "row" if source.spec.kind == "table" else "path"


def answers_of(
    source: "VerdictSource", path: Path, *, batch_rows: int, skip: int
) -> Iterator[tuple[Chunk, "Answer"]]:
    """The chunks of the input after its first `skip` rows, in order, with their verdicts."""

    def ask(chunk: Chunk) -> tuple[Chunk, "Answer"]:
        try:
            return chunk, source.score(chunk.rows)
        except BadInput as error:
            where = f"{_key(source)} {chunk.keys[0]} to {chunk.keys[-1]}"
            raise BadInput(f"{path}: {where}, counted from there: {error}") from error

    chunks = skip_rows(read_chunks(path, source.spec, batch_rows), skip)
    return in_order(ask, chunks, workers=source.workers)


def read_chunks(path: Path, spec: "ImageInput | TableInput", rows: int) -> Iterator[Chunk]:
    """The input in chunks of at most `rows` rows; memory holds a few of them."""
    if spec.kind == "table":
        from amiss_training.data.tables import iter_table

        start = 0
        for columns in iter_table(path, spec, rows):
            n = len(next(iter(columns.values())))
            yield Chunk(range(start, start + n), columns)
            start += n
        return
    from amiss_training.data.image_sources import iter_images

    for names, images in iter_images(path, spec, rows):
        yield Chunk(names, images)


def skip_rows(chunks: Iterable[Chunk], n: int) -> Iterator[Chunk]:
    """The chunks without the first n rows of all."""
    for chunk in chunks:
        if n < len(chunk.keys):
            yield chunk.after(n) if n else chunk
        n = max(0, n - len(chunk.keys))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """function(item) for each item, in order, by `workers` threads; few items are held at once."""
    pending: deque[Future[Result]] = deque()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        stack.callback(lambda: [future.cancel() for future in pending])
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def fingerprint(path: Path) -> str:
    """sha256 over names, sizes and times of the input's files: another input has another one."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        status = file.stat()
        name = file.relative_to(path.parent).as_posix()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


@contextmanager
def _hint(file: "VerdictFile", output: Path) -> Iterator[None]:
    """Says how to go on when the run ends early."""
    try:
        yield
    except BaseException:
        if file.totals.rows:
            print(
                f"{output}.part keeps {file.totals.rows} rows; the same command with --resume "
                "goes on from there",
                file=sys.stderr,
            )
        raise


def _summary(totals: "Totals", resumed_rows: int, source: "VerdictSource", seconds: float) -> str:
    before = f", {resumed_rows} of them before" if resumed_rows else ""
    return (
        f"{totals.rows} row(s) scored by {source.name}@{source.version} in {seconds:.1f} s"
        f"{before}: {totals.flagged} flagged ({totals.flagged / max(totals.rows, 1):.2%}), "
        f"{totals.unseen_categories} unseen categories, {totals.missing_values} missing values"
    )
