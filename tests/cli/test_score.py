"""`amiss score`: verdicts offline and through a real service, in order, resumable."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amiss_cli.score import Chunk, answers_of, fingerprint, in_order, main, skip_rows
from amiss_cli.verdict_source import Answer
from amiss_export.bundle import ImageInput, read_bundle
from amiss_export.errors import AmissError, BadInput, BundleNotFound
from bundle_factory import (
    image_scores,
    normal_rows,
    table_scores,
    write_image_bundle,
    write_table_bundle,
)

ROWS = 300
HEADER = "x0,x1,x2,colour,label"
COLOURS = ("red", "blue")
SERVE = """
import asyncio, sys
from amiss_serving.server import serving
from amiss_serving.settings import Settings

async def until_stdin_closes():
    settings = Settings(
        models=sys.argv[1], token=sys.argv[2] or None, http_port=0, grpc_port=0, metrics_port=0
    )
    async with serving(settings) as addresses:
        print(addresses.grpc, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(until_stdin_closes())
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table bundle with a category, and an image bundle."""
    folder = tmp_path_factory.mktemp("models")
    write_table_bundle(folder, categories=COLOURS)
    write_image_bundle(folder, channels=3)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float32]]:
    """A CSV file and the (ROWS, 4) rows it should become; row 7 lacks x1, row 9 is green."""
    rows = normal_rows(ROWS, categories=len(COLOURS), seed=1).round(3)
    rows[7, 1] = np.nan
    rows[9, 3] = 0  # unseen
    rows[11, :3] = 50  # an anomaly
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    lines = [csv_line(row) for row in rows]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path, rows


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint8]]:
    """A folder of ten colour PNGs, and their pixels (10, 3, 8, 8) in the order of their names."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(2).integers(0, 256, (10, 3, 8, 8)).astype(np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return folder, pixels


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    """Where a real service answers for the models, without a token."""
    yield from serve(models, token="")


def serve(models: Path, *, token: str) -> Iterator[str]:
    """The gRPC address of a service in another process, until the generator goes on."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(models), token],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "AMISS_TOKEN"},
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate(timeout=30)


def csv_line(row: NDArray[np.float32]) -> str:
    """A row of the table file: an empty cell for NaN, a colour for its code, a label."""
    numbers = ["" if np.isnan(x) else f"{x:.3f}" for x in row[:3]]
    colour = {0: "green", 2: "red", 3: "blue"}[int(row[3])]
    return ",".join([*numbers, colour, "0"])


def verdicts(text: str) -> dict[str, list[str]]:
    """Columns of a CSV of verdicts."""
    rows = list(csv.DictReader(io.StringIO(text)))
    return {name: [row[name] for row in rows] for name in rows[0]}


def floats(texts: list[str]) -> NDArray[np.float32]:
    """The texts as float32."""
    return np.array(texts, dtype=np.float32)


def test_table_verdicts_agree_with_the_formula(
    models: Path, table: tuple[Path, NDArray[np.float32]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores, p-values and flags on stdout are those worked out by hand, in the file's order."""
    path, rows = table
    assert main([str(path), "--detector", "table", "--models", str(models)]) == 0
    captured = capsys.readouterr()
    found = verdicts(captured.out)
    assert found["row"] == [str(i) for i in range(ROWS)]
    score = floats(found["score"])
    np.testing.assert_allclose(score, table_scores(rows), rtol=1e-5)
    bundle = read_bundle(models, "table", 1)
    decision, normals = bundle.manifest.decision, bundle.calibration
    expected_p = [(1 + (normals >= s).sum()) / (len(normals) + 1) for s in score]
    np.testing.assert_allclose(floats(found["p_value"]), expected_p, rtol=1e-5)
    assert found["is_anomaly"] == [str(s > decision.threshold).lower() for s in score]
    assert found["is_anomaly"][11] == "true"
    assert f"{ROWS} row(s) scored by table@1" in captured.err
    assert "1 unseen categories, 1 missing values" in captured.err


@pytest.mark.parametrize("batch_rows", ["1", "7", "100000"])
def test_chunks_do_not_show(
    models: Path,
    table: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    batch_rows: str,
) -> None:
    """However many rows are read at a time, the same rows come out in the same order."""
    outputs = [tmp_path / "default.csv", tmp_path / "chunks.csv"]
    where = [str(table[0]), "--detector", "table@1", "--models", str(models), "--output"]
    main([*where, str(outputs[0])])
    main([*where, str(outputs[1]), "--batch-rows", batch_rows])
    whole, cut = (verdicts(path.read_text()) for path in outputs)
    assert whole["row"] == cut["row"]
    assert whole["is_anomaly"] == cut["is_anomaly"]
    np.testing.assert_allclose(floats(whole["score"]), floats(cut["score"]), rtol=1e-6)


def test_images_are_named_by_their_path(
    models: Path,
    images: tuple[Path, NDArray[np.uint8]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder of PNGs gives one row each, by path, with the score of its pixels."""
    folder, pixels = images
    assert main([str(folder), "--detector", "image", "--models", str(models)]) == 0
    found = verdicts(capsys.readouterr().out)
    assert [Path(path).name for path in found["path"]] == [f"{i}.png" for i in range(10)]
    np.testing.assert_allclose(floats(found["score"]), image_scores(pixels), rtol=1e-5)


@pytest.mark.parametrize("reference", ["table", "table@1"])
def test_service_and_bundle_agree_on_a_table(
    models: Path,
    table: tuple[Path, NDArray[np.float32]],
    address: str,
    capsys: pytest.CaptureFixture[str],
    reference: str,
) -> None:
    """Through a service every verdict and every count is the one the bundle gives offline."""
    path = str(table[0])
    main([path, "--detector", reference, "--models", str(models)])
    offline = capsys.readouterr()
    main([path, "--detector", reference, "--address", address, "--batch-rows", "64"])
    online = capsys.readouterr()
    expected, found = verdicts(offline.out), verdicts(online.out)
    for name in ("row", "is_anomaly", "p_value"):
        assert found[name] == expected[name]
    np.testing.assert_allclose(floats(found["score"]), floats(expected["score"]), rtol=1e-6)
    assert online.err.split("s: ")[1] == offline.err.split("s: ")[1]


@pytest.mark.parametrize("with_label", [True, False])
def test_a_file_without_a_header_is_read_by_position(
    models: Path,
    table: tuple[Path, NDArray[np.float32]],
    address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    with_label: bool,
) -> None:
    """The same lines without header, and even without label, score the same on both ways."""
    path, rows = table
    lines = [csv_line(row) if with_label else csv_line(row)[:-2] for row in rows]
    headless = tmp_path / "headless.csv"
    headless.write_text("\n".join(lines) + "\n")
    outs = []
    for where in (["--models", str(models)], ["--address", address]):
        main([str(headless), "--detector", "table", *where])
        outs.append(verdicts(capsys.readouterr().out))
    main([str(path), "--detector", "table", "--models", str(models)])
    expected = verdicts(capsys.readouterr().out)
    assert outs[0] == expected
    assert outs[1]["is_anomaly"] == expected["is_anomaly"]
    assert len(outs[1]["row"]) == ROWS


def test_service_and_bundle_agree_on_images(
    models: Path,
    images: tuple[Path, NDArray[np.uint8]],
    address: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pictures are decoded here either way, so both ways give the same verdicts."""
    folder = str(images[0])
    main([folder, "--detector", "image", "--models", str(models)])
    expected = verdicts(capsys.readouterr().out)
    main([folder, "--detector", "image", "--address", address])
    found = verdicts(capsys.readouterr().out)
    assert found["path"] == expected["path"]
    assert found["is_anomaly"] == expected["is_anomaly"]
    np.testing.assert_allclose(floats(found["score"]), floats(expected["score"]), rtol=1e-6)


def test_token_file_opens_a_closed_service(
    models: Path,
    table: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a token set the service refuses without one and answers with the file's."""
    monkeypatch.delenv("AMISS_TOKEN", raising=False)
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n")
    for closed in serve(models, token="s3cret"):
        where = [str(table[0]), "--detector", "table", "--address", closed]
        with pytest.raises(AmissError, match="token"):
            main(where)
        assert main([*where, "--token-file", str(token_file)]) == 0


def test_unknown_detectors_are_not_found(
    models: Path, table: tuple[Path, NDArray[np.float32]], address: str
) -> None:
    """A name that is not there is BundleNotFound on both ways, naming what there is."""
    for where in (["--models", str(models)], ["--address", address]):
        with pytest.raises(BundleNotFound, match="table"):
            main([str(table[0]), "--detector", "nope", *where])


def test_nothing_listening_is_one_line(table: tuple[Path, NDArray[np.float32]]) -> None:
    """An address where nothing listens is named, with the command that would help."""
    with pytest.raises(AmissError, match=r"127\.0\.0\.1:9 .*amiss serve"):
        main([str(table[0]), "--detector", "table", "--address", "127.0.0.1:9"])


def test_a_killed_run_is_gone_on_with(models: Path, tmp_path: Path) -> None:
    """SIGKILL while rows are written leaves no output; --resume ends in the rows of a whole run."""
    path, output, whole = (tmp_path / name for name in ("rows.csv", "out.csv", "whole.csv"))
    lines = [csv_line(row) for row in normal_rows(5000, categories=2)]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    where = [str(path), "--detector", "table", "--models", str(models), "--output"]
    command = [sys.executable, "-m", "amiss_cli.main", "score", *where, str(output)]
    with subprocess.Popen([*command, "--batch-rows", "1"], stderr=subprocess.DEVNULL) as process:
        while rows_done(output) < 20:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    assert 20 <= rows_done(output) < 5000
    assert main([*where, str(output), "--resume"]) == 0
    assert main([*where, str(whole)]) == 0
    found, expected = verdicts(output.read_text()), verdicts(whole.read_text())
    assert found["row"] == expected["row"]
    assert found["is_anomaly"] == expected["is_anomaly"]
    np.testing.assert_allclose(floats(found["score"]), floats(expected["score"]), rtol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "rows.csv", "whole.csv"]


def rows_done(output: Path) -> int:
    """Rows that the sidecar says are whole."""
    sidecar = output.with_name(output.name + ".part.json")
    return json.loads(sidecar.read_text())["totals"]["rows"] if sidecar.exists() else 0


def test_a_bad_row_is_named_and_what_was_scored_is_kept(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text among numbers names its line; the rows before it are kept and the hint says how."""
    path, output = tmp_path / "rows.csv", tmp_path / "out.csv"
    good = [csv_line(row) for row in normal_rows(20, categories=2)]
    path.write_text("\n".join([HEADER, *good, "abc,1,1,red,0"]) + "\n")
    where = ["--detector", "table", "--models", str(models), "--output", str(output)]
    with pytest.raises(BadInput, match=r"line 22.*x0"):
        main([str(path), *where, "--batch-rows", "2"])
    assert not output.exists()
    assert "rows; the same command with --resume goes on" in capsys.readouterr().err
    path.write_text("\n".join([HEADER, *good]) + "\n")
    with pytest.raises(BadInput, match="begun with input"):
        main([str(path), *where, "--resume"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume needs --output"),
        (["--token-file", "t"], "add --address"),
        (["--batch-rows", "0"], "--batch-rows must be >= 1"),
        (["--output", "out.xlsx"], "--output must end in"),
        (["--address", "http://127.0.0.1:8000"], "HOST:PORT"),
        (["--address", "127.0.0.1:9", "--token-file", "no such file"], "cannot be read"),
    ],
)
def test_unusable_options_are_bad_input(
    table: tuple[Path, NDArray[np.float32]], options: list[str], message: str
) -> None:
    """Options that cannot work together are refused before anything is read or loaded."""
    with pytest.raises(BadInput, match=message):
        main([str(table[0]), "--detector", "table", *options])


def test_output_inside_the_input_folder_is_refused(
    models: Path, images: tuple[Path, NDArray[np.uint8]]
) -> None:
    """A file of verdicts among the pictures would change what is being scored."""
    folder = images[0]
    with pytest.raises(BadInput, match="lies in the input"):
        main([str(folder), "--detector", "image", "--output", str(folder / "out.csv")])
    with pytest.raises(BadInput, match="no such file"):
        main([str(folder / "nope"), "--detector", "image", "--models", str(models)])


def test_models_and_address_exclude_each_other() -> None:
    """A bundle and a service cannot both answer."""
    with pytest.raises(BadInput, match="not allowed with"):
        main(["x.csv", "--detector", "t", "--models", "m", "--address", "h:1"])


def test_a_row_the_detector_refuses_is_placed_in_the_file(tmp_path: Path) -> None:
    """A refusal that counts rows within its chunk says where in the file the chunk stands."""
    np.savez(tmp_path / "x.npz", X=np.zeros((5, 3, 8, 8), dtype=np.uint8))
    source = FussySource()
    answers = answers_of(source, tmp_path / "x.npz", batch_rows=2, skip=2)
    with pytest.raises(BadInput, match=r"x\.npz: path 2 to 3, counted from there: no"):
        next(answers)


class FussySource:
    """A source of verdicts that takes nothing."""

    name, version, threshold, workers = "fussy", 1, 1.0, 1
    spec = ImageInput(channels=3, height=8, width=8)

    def score(self, _rows: object) -> Answer:
        """Never."""
        raise BadInput("no")


def test_in_order_keeps_order_and_looks_little_ahead() -> None:
    """Slow items do not overtake, and at most workers + 1 items are taken before one is given."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            taken.append(i)
            yield i

    def slow_when_even(i: int) -> int:
        time.sleep(0.01 if i % 2 == 0 else 0)
        return i * i

    for done, square in enumerate(in_order(slow_when_even, items(), workers=3)):
        assert square == done * done
        assert len(taken) <= done + 4
    assert taken == list(range(20))


def test_in_order_raises_what_an_item_raises() -> None:
    """The error of the third item comes out third, after two results."""

    def fail_at_2(i: int) -> int:
        if i == 2:
            raise BadInput("two")
        return i

    results = in_order(fail_at_2, range(100), workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(BadInput, match="two"):
        next(results)


@pytest.mark.parametrize("n", range(9))
def test_skip_rows_drops_the_first_n(n: int) -> None:
    """Whatever the chunk borders, exactly the first n rows are gone."""
    chunks = [
        Chunk(range(s, e), {"x": np.arange(s, e, dtype=float)}) for s, e in [(0, 3), (3, 6), (6, 8)]
    ]
    left = list(skip_rows(chunks, n))
    assert [key for chunk in left for key in chunk.keys] == list(range(n, 8))
    assert [x for chunk in left for x in chunk.rows["x"]] == list(range(n, 8))


def test_fingerprint_tells_inputs_apart(tmp_path: Path) -> None:
    """Another size, time or name of any file gives another fingerprint; the same gives the same."""
    (tmp_path / "a").write_text("1")
    seen = [fingerprint(tmp_path)]
    assert fingerprint(tmp_path) == seen[0]
    (tmp_path / "a").write_text("12")
    seen.append(fingerprint(tmp_path))
    os.utime(tmp_path / "a", (1, 1))
    seen.append(fingerprint(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    seen.append(fingerprint(tmp_path))
    assert len(set(seen)) == 4


def test_help_loads_no_heavy_room() -> None:
    """`amiss score --help` answers without numpy, pydantic, pyarrow, torch or onnxruntime."""
    heavy = ("numpy", "pydantic", "pyarrow", "torch", "onnxruntime", "grpc")
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))\n"
        "import amiss_cli.models, amiss_cli.score\n"
        "amiss_cli.score.main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "usage: amiss score" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
