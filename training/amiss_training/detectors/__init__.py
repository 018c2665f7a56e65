"""The detectors, one file each: LightningModules over features that have a `fit_readout`."""

from amiss_training.detectors.vae import Vae, VaeConfig

DETECTORS = {"vae": Vae}

__all__ = ["DETECTORS", "Vae", "VaeConfig"]
