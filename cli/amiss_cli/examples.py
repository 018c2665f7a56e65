"""Lines to paste: how to ask each served detector for a verdict on one of its own test rows."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from amiss_serving.server import Addresses
from amiss_serving.settings import Settings
from amiss_serving.sockets import UNIX

EXAMPLES = Path("report/examples")


def examples(settings: Settings, at: Addresses) -> str:
    """A curl line per detector and one Python snippet, for the token that is set."""
    found = _example_files(Path(settings.models), at.detectors)
    if not found:
        return "no example rows in the bundles; see /docs for how to ask"
    closed = settings.read_token() is not None
    lines = ["", "Ask it, in another terminal, from this folder:", ""]
    lines += _token_lines(settings) if closed else []
    lines += [_curl(name, file, at.http, closed) for name, file in found.items()]
    lines += ["", f"{_python()} - <<'END'", *_snippet(found, at.grpc), "END", ""]
    return "\n".join(lines)


def _example_files(models: Path, detectors: Sequence[str]) -> dict[str, Path]:
    """The most anomalous test row of each NAME@VERSION, by name; those without are left out."""
    found: dict[str, Path] = {}
    for detector in detectors:
        name, _, version = detector.partition("@")
        files = sorted((models / name / version / EXAMPLES).glob("most_anomalous_0.*"))
        if files:
            found[name] = files[0]
    return found


def _token_lines(settings: Settings) -> list[str]:
    """How AMISS_TOKEN, which curl and the client read, comes to hold the token; never the token."""
    if settings.token_file:
        return [f'export AMISS_TOKEN="$(cat {quote(settings.token_file)})"']
    return ["# AMISS_TOKEN must be set there to the token of this service", ""]


def _curl(name: str, file: Path, http: str, closed: bool) -> str:
    token = '-H "Authorization: Bearer $AMISS_TOKEN" ' if closed else ""
    path = http.removeprefix(UNIX)
    where, host = ("", http) if path == http else (f"--unix-socket {quote(path)} ", "localhost")
    url = f"http://{host}/v1/detectors/{name}:score"
    if file.suffix == ".json":
        body = f"-H 'Content-Type: application/json' --data {quote(f'@{file}')}"
    else:
        body = f"-F {quote(f'images=@{file}')}"
    return f"curl -s {where}{token}{body} {url}"


def _python() -> str:
    """The interpreter that has the client, as short as it can be from this folder."""
    here, python = Path.cwd(), Path(sys.executable)
    return quote(str(python.relative_to(here) if python.is_relative_to(here) else python))


def _snippet(found: dict[str, Path], grpc: str) -> list[str]:
    """Five lines of Python that ask the first image detector, or else the first table."""
    images = {name: file for name, file in found.items() if file.suffix != ".json"}
    name, file = next(iter((images or found).items()))
    path = json.dumps(str(file))
    ask = (
        f'score_images("{name}", [{path}])'
        if images
        else f'score_table("{name}", json.load(open({path}))["records"])'
    )
    return [
        *([] if images else ["import json"]),
        "from amiss_client import Client",
        f'with Client("{grpc}") as amiss:',
        f"    for verdict in amiss.{ask}:",
        "        print(verdict)",
    ]
