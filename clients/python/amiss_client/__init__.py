"""Ask an Amiss service for scores. Needs grpcio, protobuf and numpy, nothing else.

from amiss_client import Client

with Client("127.0.0.1:8001") as client:
    print(client.score_images("digits", ["three.png"]))
"""

from amiss_client.aio import AsyncClient
from amiss_client.client import Client
from amiss_client.errors import (
    AmissClientError,
    DeadlineExceeded,
    DetectorNotFound,
    InvalidInput,
    LoadFailed,
    Overloaded,
    PermissionDenied,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from amiss_client.results import (
    ColumnSpec,
    DetectorInfo,
    ImageSpec,
    LabelChange,
    RefusedBundle,
    Scores,
    TableSpec,
    Verdict,
)

__all__ = [
    "AmissClientError",
    "AsyncClient",
    "Client",
    "ColumnSpec",
    "DeadlineExceeded",
    "DetectorInfo",
    "DetectorNotFound",
    "ImageSpec",
    "InvalidInput",
    "LabelChange",
    "LoadFailed",
    "Overloaded",
    "PermissionDenied",
    "RefusedBundle",
    "Scores",
    "ServerError",
    "TableSpec",
    "Unauthenticated",
    "Unavailable",
    "Verdict",
]
