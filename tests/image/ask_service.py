"""What a caller of the service on its default ports sees, as one JSON object on stdout.

Runs as a program in the container's network: python ask_service.py TOKEN
"""

import json
import sys
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from amiss_client import Client

HTTP, GRPC, METRICS = "http://127.0.0.1:8000", "127.0.0.1:8001", "http://127.0.0.1:8002"
ROWS = [[0, 1, 2], [9, 9, 9], [-1, 5, 2.5]]
SCORE = "/v1/detectors/table:score"


def fetch(url: str, *, token: str, document: Any = None) -> tuple[int, str]:
    """Status and body; a POST when there is a document."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310  our own http:// constants
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def main(token: str) -> dict[str, Any]:
    """Scores over HTTP and gRPC, and what is refused without the token."""
    rows = np.array(ROWS, np.float32)
    with Client(GRPC, token=token) as client:
        over_grpc = [verdict.score for verdict in client.score_tensor("table", rows)]
    return {
        "http": json.loads(fetch(HTTP + SCORE, token=token, document={"rows": ROWS})[1]),
        "grpc": over_grpc,
        "metrics": fetch(METRICS + "/metrics", token=token)[1],
        "refused": [
            fetch(HTTP + SCORE, token="wrong", document={"rows": ROWS})[0],
            fetch(METRICS + "/metrics", token="wrong")[0],
        ],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
