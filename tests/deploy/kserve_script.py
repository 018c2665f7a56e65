"""Run by test_kserve.py in a venv of its own: exits with 1 and a line for each fault of a manifest.

KServe's models are generated from its CRDs; those of Kubernetes that they hold come from its own
client. Both keep what they know in openapi_types and attribute_map, and drop the rest in silence,
which is why the document is walked here.
"""

import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import models as kubernetes_models

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
CONTAINER = re.compile(r"(list|dict)[\[(](?:str, ?)?(.+)[\])]")


def load_models() -> Any:
    """kserve.models without kserve itself, whose import needs a server's worth of packages."""
    spec = importlib.util.find_spec("kserve")
    assert spec is not None
    package = types.ModuleType("kserve")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["kserve"] = package
    return importlib.import_module("kserve.models")


def faults(value: Any, kind: str, at: str, models: Any) -> Iterator[str]:
    """What does not fit the type: unknown keys, missing ones, values of another type."""
    if kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):
            yield f"{at}: expected {kind}, got {value!r}"
        return
    holder = CONTAINER.fullmatch(kind)
    if holder:
        items = enumerate(value) if holder[1] == "list" else value.items()
        for key, item in items:
            yield from faults(item, holder[2], f"{at}[{key}]", models)
        return
    model = getattr(models, kind, None) or getattr(kubernetes_models, kind, None)
    if model is not None:  # else a quantity or the like, which is text or a number
        yield from model_faults(value, model, at, models)


def model_faults(value: Any, model: Any, at: str, models: Any) -> Iterator[str]:
    """Those of one object; what is required only the model's own constructor knows."""
    attributes = {key: attribute for attribute, key in model.attribute_map.items()}
    for key in value.keys() - attributes.keys():
        yield f"{at}.{key}: {model.__name__} knows {', '.join(sorted(attributes))}"
    known = {attributes[key]: item for key, item in value.items() if key in attributes}
    try:
        model(**known)
    except (TypeError, ValueError) as error:
        yield f"{at}: {error}"
    for attribute, item in known.items():
        key = model.attribute_map[attribute]
        yield from faults(item, model.openapi_types[attribute], f"{at}.{key}", models)


def main(paths: list[str]) -> int:
    """The exit code."""
    models, found = load_models(), []
    for path in paths:
        document = yaml.safe_load(Path(path).read_text())
        version = document["apiVersion"].rpartition("/")[2]
        kind = f"V{version[1:]}{document['kind']}"
        if not hasattr(models, kind):
            found.append(f"{path}: KServe has no {kind}")
            continue
        found += faults(document, kind, Path(path).name, models)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
