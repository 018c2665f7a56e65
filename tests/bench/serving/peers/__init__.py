"""One file per server: how it is installed, configured, started and asked."""

from .amiss import Amiss
from .base import Cell, Peer, Server
from .litserve import LitServe
from .mlserver import MLServer
from .torchserve import TorchServe, TorchServeTorchScript
from .triton import Triton

PEERS: dict[str, type[Peer]] = {
    "amiss": Amiss,
    "triton": Triton,
    "torchserve": TorchServe,
    "torchserve-torchscript": TorchServeTorchScript,
    "litserve": LitServe,
    "mlserver": MLServer,
}

__all__ = ["PEERS", "Cell", "Peer", "Server"]
