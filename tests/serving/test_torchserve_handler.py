"""The handler of our archives: what arrives, what goes back, and whose fault is whose."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amiss_export.bundle import ONNX, TORCHSCRIPT, read_bundle
from amiss_export.errors import BadInput, BundleRefused
from amiss_export.to_mar import write_mar
from amiss_serving.http_door import STATUS as HTTP_STATUS
from amiss_serving.http_messages import ScoreAnswer
from amiss_serving.torchserve import HANDLER
from amiss_serving.torchserve.batch import MAX_BATCH_ROWS, STATUS, Failure, answer_batch
from bundle_factory import image_scores, normal_rows, table_scores
from torchscript_bundles import images_with_torchscript, table_with_torchscript

from .conftest import POISON, FakeRuntime, MakeDetector, rows
from .torchserve_marks import needs_torchserve

if TYPE_CHECKING:
    from .torchserve_worker import Worker

Fields = dict[str, bytes]
Start = Callable[..., "Worker"]
BOTH = pytest.mark.parametrize("model", [TORCHSCRIPT, ONNX])


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a worker with the archive of the bundle that `write` writes; altered: its model."""
    from .torchserve_worker import Worker

    def start(
        write: Callable[[Path], int] = table_with_torchscript,
        model: str = TORCHSCRIPT,
        *,
        altered: bytes = b"",
        gpu_id: int | None = None,
    ) -> Worker:
        version = write(tmp_path / "models")
        (there,) = (tmp_path / "models").iterdir()
        bundle = read_bundle(tmp_path / "models", there.name, version)
        write_mar(bundle, tmp_path / "a.mar", handler=HANDLER, model=model)
        with ZipFile(tmp_path / "a.mar") as archive:
            archive.extractall(tmp_path / "unpacked")
        if altered:
            (tmp_path / "unpacked" / "model.pt").write_bytes(altered)
        return Worker(tmp_path / "unpacked", monkeypatch, gpu_id=gpu_id)

    return start


def tensor(x: NDArray[Any], outputs: str = "score") -> Fields:
    """What our own front sends."""
    shape = ",".join(map(str, x.shape))
    return {"tensor": x.tobytes(), "shape": shape.encode(), "outputs": outputs.encode()}


def body(message: object) -> Fields:
    return {"body": json.dumps(message).encode()}


def scores(answer: bytes) -> list[float]:
    return [result.score for result in msgspec.json.decode(answer, type=ScoreAnswer).results]


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[0]).save(file, "PNG")
    return file.getvalue()


@needs_torchserve
@BOTH
def test_a_table_is_answered_as_over_http(start: Start, model: str) -> None:
    """Records and rows get the formula's scores in the HTTP door's JSON, in either runtime."""
    x = normal_rows(5)
    records = [{f"x{j}": float(v) for j, v in enumerate(row)} for row in x]
    answers = start(model=model).ask(body({"records": records}), body({"rows": x.tolist()}))
    for answer in answers:
        assert (answer.status, answer.content_type) == (200, "application/json")
        np.testing.assert_allclose(scores(answer.body), table_scores(x), rtol=1e-5)


@needs_torchserve
def test_pictures_are_the_body_or_the_fields_of_a_form(start: Start) -> None:
    """One picture as the body, several under names of their own, reconstructed on request."""
    x = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.uint8)
    form = {f"picture{i}": png(pixels) for i, pixels in enumerate(x)}
    one, all_, expected = start(images_with_torchscript).ask(
        {"body": png(x[0])}, form, {**form, "reconstruction": b"true"}
    )
    np.testing.assert_allclose(scores(one.body), image_scores(x[:1]), rtol=1e-5)
    np.testing.assert_allclose(scores(all_.body), image_scores(x), rtol=1e-5)
    assert b"reconstruction" not in all_.body
    results = json.loads(expected.body)["results"]
    assert np.shape([result["reconstruction"] for result in results]) == x.shape


@needs_torchserve
@BOTH
def test_a_tensor_is_answered_in_bytes(start: Start, model: str) -> None:
    """Scores alone, or scores and then the reconstruction, as little-endian float32."""
    x = normal_rows(4)
    alone, both = start(model=model).ask(tensor(x), tensor(x, "score,reconstruction"))
    np.testing.assert_allclose(np.frombuffer(alone.body, "<f4"), table_scores(x), rtol=1e-5)
    values = np.frombuffer(both.body, "<f4")
    np.testing.assert_allclose(values[:4], table_scores(x), rtol=1e-5)
    np.testing.assert_array_equal(values[4:].reshape(4, 3), np.tile(np.float32([0, 1, 2]), (4, 1)))
    assert both.content_type == "application/octet-stream"


@needs_torchserve
def test_one_bad_member_of_a_batch_is_answered_alone(start: Start) -> None:
    """The others get their scores with status 200, the bad one its own status and message."""
    x = normal_rows(2)
    first, bad, last = start().ask(tensor(x[:1]), body({"rows": [[1.0]]}), tensor(x[1:]))
    assert (first.status, bad.status, last.status) == (200, 400, 200)
    got = np.frombuffer(first.body + last.body, "<f4")
    np.testing.assert_allclose(got, table_scores(x), rtol=1e-5)
    failure = msgspec.json.decode(bad.body, type=Failure)
    assert failure == Failure("row 0: expected 3 values, got 1", "request-1", 400)


@needs_torchserve
def test_json_arrives_as_it_was_sent(start: Start) -> None:
    """NaN, which is no JSON and which TorchServe's own reading lets through, is refused."""
    sent = {"body": b'{"rows": [[0, 1, NaN]]}'}
    (answer,) = start().ask(sent, content_type="application/json")
    assert answer.status == 400
    assert b"JSON is malformed" in answer.body


@needs_torchserve
def test_an_altered_archive_is_not_served(start: Start) -> None:
    """A worker refuses a model that is not the one its manifest lists."""
    with pytest.raises(BundleRefused, match="sha256 differs"):
        start(altered=b"another model")


@needs_torchserve
def test_a_device_that_cannot_be_used_is_done_without(start: Start) -> None:
    """A worker that was given a CUDA device scores, on it or, where torch cannot, on the CPU."""
    x = normal_rows(2)
    (answer,) = start(gpu_id=0).ask(tensor(x))
    np.testing.assert_allclose(np.frombuffer(answer.body, "<f4"), table_scores(x), rtol=1e-5)


@needs_torchserve
@pytest.mark.parametrize("threads", ["0", "two", "-1"])
def test_threads_are_a_number(start: Start, monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    """AMISS_THREADS that is no number of threads keeps the worker from starting, by name."""
    monkeypatch.setenv("AMISS_THREADS", threads)
    with pytest.raises(BadInput, match=f"AMISS_THREADS .* got '{threads}'"):
        start()


def test_all_rows_of_a_batch_share_one_run(make_detector: MakeDetector) -> None:
    """Three requests are one run of the model, and each gets its own rows back."""
    runtime = FakeRuntime()
    batch = [tensor(rows(1, 2)), body({"rows": [[3, 0, 0]]}), tensor(rows(4))]
    first, second, third = answer_batch(make_detector(runtime), batch, ["a", "b", "c"])
    assert runtime.calls == [(4, ("score",))]
    assert np.frombuffer(first.body, "<f4").tolist() == [1, 2]
    assert scores(second.body) == [3]
    assert np.frombuffer(third.body, "<f4").tolist() == [4]


def test_reconstructions_are_a_run_of_their_own(make_detector: MakeDetector) -> None:
    """Who asks for the score alone does not pay for a neighbour's reconstruction."""
    runtime = FakeRuntime()
    batch = [tensor(rows(1), "score,reconstruction"), tensor(rows(2))]
    both, alone = answer_batch(make_detector(runtime), batch, ["a", "b"])
    assert runtime.calls == [(1, ("score",)), (1, ("score", "reconstruction"))]
    assert np.frombuffer(both.body, "<f4").tolist() == [1, 2, 1, 1]
    assert np.frombuffer(alone.body, "<f4").tolist() == [2]


def test_a_row_that_breaks_the_model_fails_its_request_alone(
    make_detector: MakeDetector, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says all, the caller only where to look; the neighbours are answered."""
    batch = [tensor(rows(1)), tensor(rows(POISON)), tensor(rows(2))]
    replies = answer_batch(make_detector(FakeRuntime()), batch, ["a", "b", "c"])
    assert [reply.status for reply in replies] == [200, 500, 200]
    failure = msgspec.json.decode(replies[1].body, type=Failure)
    assert failure.error == "internal error; TorchServe's log has it under request id b"
    assert "poisoned row" in caplog.text


def test_a_score_that_is_no_number_is_an_error(make_detector: MakeDetector) -> None:
    """It is answered with 500 and said so: never as normal."""

    class NoNumber(FakeRuntime):
        def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
            return {"score": np.full(len(x), np.nan, np.float32)}

    (reply,) = answer_batch(make_detector(NoNumber()), [tensor(rows(1))], ["a"])
    assert reply.status == 500
    assert b"not a finite number" in reply.body


def test_a_long_request_runs_in_parts(make_detector: MakeDetector) -> None:
    """No run has more rows than one may have, and the answer is whole and in order."""
    runtime, n = FakeRuntime(), 2 * MAX_BATCH_ROWS + 1
    (reply,) = answer_batch(make_detector(runtime), [tensor(rows(*range(n)))], ["a"])
    assert [size for size, _ in runtime.calls] == [MAX_BATCH_ROWS, MAX_BATCH_ROWS, 1]
    assert np.frombuffer(reply.body, "<f4").tolist() == list(range(n))


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({**tensor(rows(1)), "shape": b"2,3"}, 400, "holds 24 bytes, got 12 bytes"),
        ({**tensor(rows(1)), "shape": b"1,-3"}, 400, "lengths, e.g. 2,30, got '1,-3'"),
        ({"tensor": b""}, 400, "lengths, e.g. 2,30, got ''"),
        (tensor(rows(1), "threshold"), 400, "'score,reconstruction', got 'threshold'"),
        (tensor(rows(np.inf)), 400, "expected a finite number, got inf"),
        (tensor(np.zeros((8193, 3), "<f4")), 413, "may hold 8192 rows, got 8193"),
        ({"body": b"{"}, 400, "expected JSON with records or rows"),
        ({"body": b"{}", "reconstruction": b"maybe"}, 400, "true or false, got 'maybe'"),
        ({}, 400, "content type application/json, got 0 field(s)"),
        ({"picture": b"x", "other": b"y"}, 400, "got 2 field(s) ['picture', 'other']"),
    ],
)
def test_wrong_input_says_what_was_expected(
    fields: Fields, status: int, message: str, make_detector: MakeDetector
) -> None:
    """Status and message are the caller's to act on, and no run of the model is spent on it."""
    runtime = FakeRuntime()
    (reply,) = answer_batch(make_detector(runtime), [fields], ["a"])
    failure = msgspec.json.decode(reply.body, type=Failure)
    assert (reply.status, failure.status) == (status, status)
    assert message in failure.error
    assert not runtime.calls


def test_an_error_is_never_as_long_as_numbers_are(make_detector: MakeDetector) -> None:
    """Whatever the message's length, an error's bytes are no multiple of four."""
    detector = make_detector(FakeRuntime())
    batch = [tensor(rows(1), "x" * length) for length in range(1, 9)]
    replies = answer_batch(detector, batch, [""] * len(batch))
    assert all(len(reply.body) % 4 for reply in replies)


def test_statuses_are_those_of_the_http_door() -> None:
    """Each error has the status that the HTTP door gives it."""
    assert STATUS.items() <= HTTP_STATUS.items()
