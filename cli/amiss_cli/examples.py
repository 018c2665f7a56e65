"""Lines to paste: how to ask each served detector for a verdict on one of its own test rows."""

from pathlib import Path

from amiss_export.bundle import list_versions, resolve_version
from amiss_serving.server import Addresses
from amiss_serving.settings import Settings

EXAMPLES = Path("report/examples")


def examples(settings: Settings, at: Addresses) -> str:
    """A curl line per detector and one Python snippet, for the token that is set."""
    found = _example_files(Path(settings.models))
    if not found:
        return "no example rows in the bundles; see /docs for how to ask"
    closed = settings.read_token() is not None
    lines = ["", "Ask it, in another terminal, from this folder:", ""]
    lines += [_curl(name, file, at.http, closed) for name, file in found.items()]
    lines += ["", ".venv/bin/python - <<'END'", *_snippet(found, at.grpc), "END", ""]
    return "\n".join(lines)


def _example_files(models: Path) -> dict[str, Path]:
    """The most anomalous test row of each detector's served version, by name."""
    found: dict[str, Path] = {}
    for name in list_versions(models):
        folder = models / name / str(resolve_version(models, name)) / EXAMPLES
        files = sorted(folder.glob("most_anomalous_0.*"))
        if files:
            found[name] = files[0]
    return found


def _curl(name: str, file: Path, http: str, closed: bool) -> str:
    token = '-H "Authorization: Bearer $AMISS_TOKEN" ' if closed else ""
    url = f"http://{http}/v1/detectors/{name}:score"
    if file.suffix == ".json":
        return f"curl -s {token}-H 'Content-Type: application/json' --data @{file} {url}"
    return f"curl -s {token}-F images=@{file} {url}"


def _snippet(found: dict[str, Path], grpc: str) -> list[str]:
    """Five lines of Python that ask the first image detector, or else the first table."""
    images = {name: file for name, file in found.items() if file.suffix != ".json"}
    name, file = next(iter((images or found).items()))
    ask = (
        f'score_images("{name}", ["{file}"])'
        if images
        else f'score_table("{name}", json.load(open("{file}"))["records"])'
    )
    return [
        *([] if images else ["import json"]),
        "from amiss_client import Client",
        f'with Client("{grpc}") as amiss:',
        f"    for verdict in amiss.{ask}:",
        "        print(verdict)",
    ]
