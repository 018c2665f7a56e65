"""Which options of `amiss torchserve` are accepted, and what becomes of them."""

import pytest

from amiss_export.errors import BadInput
from amiss_serving.torchserve.config import Options, Ports
from amiss_serving.torchserve.settings import TorchServeSettings


def test_defaults_are_those_of_torchserve_itself() -> None:
    """Without options both TorchServe's ports and limits are what the classes below say."""
    settings = TorchServeSettings()
    settings.validate()
    assert settings.options("cpu") == Options()
    assert settings.ports() == Ports()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"http_port": -1}, "http_port must lie between 0 and 65535, got -1"),
        ({"workers": 0}, "workers must be > 0, got 0"),
        ({"batch_delay_ms": 0}, "batch_delay_ms must be > 0, got 0"),
        ({"token_expiration_min": 0.0}, "token_expiration_min must be > 0"),
        ({"metrics_port": 8080}, "the ports must differ"),
        ({"log_level": "loud"}, "log_level must be one of"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(options: dict[str, object], message: str) -> None:
    """The error names the key, what was expected and what arrived."""
    with pytest.raises(BadInput, match=message):
        TorchServeSettings(**options).validate()  # type: ignore[arg-type]


def test_several_free_ports_may_be_asked_for() -> None:
    """Zero is no port that could be taken twice."""
    TorchServeSettings(http_port=0, grpc_port=0, metrics_port=0).validate()
