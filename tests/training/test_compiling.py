"""torch.compile around a detector: inside the block, and nowhere else."""

import pytest

from amiss_export.errors import BadInput
from amiss_training.compiling import check_compiler, compiled
from amiss_training.detectors.vae import Vae, VaeConfig


def small() -> Vae:
    return Vae(VaeConfig(hidden=(4,), latent_dim=2), shape=(3,), columns=3)


@pytest.mark.slow  # importing the compiler takes seconds
def test_networks_are_compiled_inside_the_block_only() -> None:
    """Encoder and decoder are wrapped inside and as they were after."""
    vae = small()
    with compiled(vae):
        assert "path" in vars(vae.network.encoder)
        assert vae.network.decoder._compiled_call_impl is not None
    assert "path" not in vars(vae.network.encoder)
    assert vae.network.decoder._compiled_call_impl is None


def test_nothing_is_wrapped_unless_asked() -> None:
    """With enabled=False the detector inside the block is the eager one."""
    vae = small()
    with compiled(vae, enabled=False):
        assert "path" not in vars(vae.network.encoder)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CXX names no program, the message has its name and the way out."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BadInput, match=r"no-such-compiler; install one .*without --fit\.compile"):
        check_compiler()
