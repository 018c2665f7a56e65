"""What the engine asks of a runtime, whichever it is."""

from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray


class Runtime(Protocol):
    """A loaded graph. device: 'cpu' or 'cuda:0'. Threads may share it.

    is_remote: whether another process computes, so that a run is a wait.
    """

    device: str
    is_remote: ClassVar[bool] = False

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """The named outputs for a batch x (n, ...), each (n, ...)."""

    def close(self) -> None:
        """Let go of what outlives this object; it cannot run any more."""
        return

    def check_ready(self) -> None:
        """Nothing, while it can run. Raises NotReady with the reason."""
        return
