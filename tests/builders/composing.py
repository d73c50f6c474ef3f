"""Configs as a command line composes them."""

from __future__ import annotations

from hydra import compose, initialize_config_dir

from bitsure.config import schema
from bitsure.config.paths import CONF
from bitsure.config.validation import to_dataclasses


def composed(*overrides: str) -> schema.Config:
    """Return the config of a command with these overrides, such as `quant=rtn3`."""
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_dataclasses(compose("config", overrides=list(overrides)))
