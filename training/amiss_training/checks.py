"""Settings that cannot work are refused by name before time is spent on them."""

import math

from amiss_export.errors import BadInput


def check_range(name: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Nothing; raises BadInput naming the option when it is set and not within least..most."""
    if value is None or least <= value <= most:
        return
    wanted = f">= {least:g}" if most == math.inf else f"within {least:g}..{most:g}"
    raise BadInput(f"config {name!r} must be {wanted}, got {value:g}")
