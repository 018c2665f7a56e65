"""What NVIDIA's own clients see of a service, as one JSON object on stdout.

Runs in a venv of its own: python tritonclient_script.py CLIENT ADDRESS, where CLIENT is one of
http, http.aio, grpc, grpc.aio.
"""

import asyncio
import importlib
import inspect
import json
import sys
from typing import Any

import numpy as np

PIXELS = [[[[v] * 8] * 8] for v in (128, 0, 255)]
ROWS = [[0, 1, 2], [9, 9, 9]]


async def main(kind: str, address: str) -> dict[str, Any]:
    client_module = importlib.import_module(f"tritonclient.{kind}")
    tensors = importlib.import_module(f"tritonclient.{kind.split('.', maxsplit=1)[0]}")
    client = client_module.InferenceServerClient(address)
    documents = {} if kind.startswith("http") else {"as_json": True}

    async def ask(method: str, *args: Any, **options: Any) -> Any:
        answer = getattr(client, method)(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def error(method: str, *args: Any, **options: Any) -> str:
        try:
            return f"no error: {await ask(method, *args, **options)}"
        except tensors.InferenceServerException as caught:
            return f"{caught.status()} {caught.message()}"

    async def infer(model: str, x: Any, outputs: tuple[str, ...] = (), **options: Any) -> Any:
        name, datatype = ("images", "UINT8") if x.dtype == np.uint8 else ("rows", "FP32")
        tensor = tensors.InferInput(name, list(x.shape), datatype)
        tensor.set_data_from_numpy(x)
        asked = [tensors.InferRequestedOutput(output) for output in outputs] or None
        result = await ask("infer", model, [tensor], outputs=asked, **options)
        response = result.get_response()
        found = (
            response
            if isinstance(response, dict)
            else {
                "id": response.id,
                "model_version": response.model_version,
                "outputs": [{"name": output.name} for output in response.outputs],
            }
        )
        names = [output["name"] for output in found["outputs"]]
        return {
            "id": found.get("id", ""),
            "version": found["model_version"],
            "outputs": {name: result.as_numpy(name).tolist() for name in names},
        }

    images, rows = np.array(PIXELS, dtype=np.uint8), np.array(ROWS, dtype=np.float32)
    seen = {
        "live": await ask("is_server_live"),
        "ready": await ask("is_server_ready"),
        "model_ready": await ask("is_model_ready", "image"),
        "absent_ready": await ask("is_model_ready", "absent"),
        "server": await ask("get_server_metadata", **documents),
        "metadata": await ask("get_model_metadata", "image", **documents),
        "config": await ask("get_model_config", "table", **documents),
        "images": await infer("image", images, request_id="mine"),
        "rows": await infer("table", rows, model_version="1", client_timeout=5, timeout=5_000_000)
        if kind.startswith("grpc")
        else await infer("table", rows, model_version="1", timeout=5_000_000),
        "reconstruction": await infer("table", rows, outputs=("reconstruction", "score")),
        "wrong_type": await error("infer", "table", [tensors.InferInput("rows", [1, 3], "FP64")]),
        "absent": await error("get_model_metadata", "absent"),
        "index": await ask("get_model_repository_index", **documents),
    }
    await ask("unload_model", "image")
    seen["unloaded_ready"] = await ask("is_model_ready", "image")
    await ask("load_model", "image")
    seen["loaded_ready"] = await ask("is_model_ready", "image")
    seen["load_absent"] = await error("load_model", "absent")
    seen["statistics"] = await ask("get_inference_statistics", "table", **documents)
    if kind.startswith("grpc"):
        seen["stream"] = await stream(kind, client, tensors, rows)
    await ask("close")
    return seen


async def stream(kind: str, client: Any, tensors: Any, rows: Any) -> list[Any]:
    """Scores of one row each, or the error, through ModelStreamInfer."""
    requests = []
    for number, row in enumerate((rows[:1], rows[1:], rows)):
        tensor = tensors.InferInput("rows", list(row.shape), "FP32")
        tensor.set_data_from_numpy(row)
        name = "table" if number < 2 else "absent"
        requests.append({"model_name": name, "inputs": [tensor], "request_id": str(number)})
    found: list[Any] = []

    def keep(result: Any, error: Any) -> None:
        found.append(error.message() if error else result.as_numpy("score").tolist())

    if kind == "grpc.aio":

        async def source() -> Any:
            for request in requests:
                yield request

        async for result, error in client.stream_infer(source()):
            keep(result, error)
    else:
        client.start_stream(keep)
        for request in requests:
            client.async_stream_infer(**request)
        client.stop_stream()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2]))))
