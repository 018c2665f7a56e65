"""What we use of grpcio that is not public, and whether it is still as we know it.

A test fails when the installed grpcio is another, and constraints.txt pins it; elsewhere the
service then runs on what is documented, slower.
"""

import importlib
import inspect
from functools import lru_cache
from typing import Any

server: Any = importlib.import_module("grpc._server")
cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
STATUS_CODES: Any = importlib.import_module("grpc._common").STATUS_CODE_TO_CYGRPC_STATUS_CODE

_PARAMETERS = {  # of the functions we call
    "_begin_shutdown_once": ("state",),
    "_get_initial_metadata_operation": ("state", "metadata"),
    "_is_rpc_state_active": ("state",),
    "_possibly_finish_call": ("state", "token"),
    "_process_event_and_continue": ("state", "event"),
    "_request_call": ("state",),
}
_NEEDED = {
    server: ("_REQUEST_CALL_TAG", "_SEND_MESSAGE_TOKEN", "_ServerStage"),
    cygrpc: (
        "CompletionType",
        "ReceiveCloseOnServerOperation",
        "ReceiveMessageOperation",
        "SendInitialMetadataOperation",
        "SendMessageOperation",
        "SendStatusFromServerOperation",
        "StatusCode",
    ),
}


@lru_cache(maxsize=1)
def is_supported() -> bool:
    """Whether this grpcio has the functions we know, with the parameters we know."""
    return all(
        tuple(inspect.signature(getattr(server, name, print)).parameters) == parameters
        for name, parameters in _PARAMETERS.items()
    ) and all(hasattr(module, name) for module, names in _NEEDED.items() for name in names)
