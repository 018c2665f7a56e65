"""What importing the client costs a service that only wants to ask."""

import subprocess
import sys

HEAVY = ("torch", "onnxruntime", "pandas", "pydantic", "PIL", "scipy", "amiss_export")


def test_importing_the_client_pulls_in_nothing_heavy() -> None:
    """A fresh interpreter that imports amiss_client has loaded none of the heavy packages."""
    code = f"import sys, amiss_client; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
