"""Which series a PromQL expression reads."""

import json
import re
from pathlib import Path
from typing import Any

_ASIDE = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)'
)
_NAME = re.compile(r"(?<![\w.:])[a-zA-Z_:][\w:]*\b(?!\s*\()")
_OPERATORS = {"and", "or", "unless", "bool", "offset"}


def series(expression: str) -> set[str]:
    """Names of the series that the expression selects."""
    plain = _ASIDE.sub(" ", expression)
    return {name for name in _NAME.findall(plain) if name not in _OPERATORS}


def queries(dashboard: Path) -> dict[str, str]:
    """What each panel, variable and annotation asks, by where it stands."""
    board: dict[str, Any] = json.loads(dashboard.read_text())
    found = {
        f"{panel['title']}: {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])
            assert asked, f"unexpected query of the variable {variable['name']}"
            found[f"variable {variable['name']}"] = asked[1]
    for annotation in board["annotations"]["list"]:
        found[f"annotation {annotation['name']}"] = annotation["expr"]
    return found
