"""How large a model is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base.files import write_text
from bitsure.base.store import Store
from bitsure.models.load import empty_model
from bitsure.models.locate import Source
from bitsure.models.weight_files import bytes_on_disk

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelSize:
    """The size of a full-precision model."""

    parameters: int
    """Parameters, a tied one counted once."""
    bytes_on_disk: int
    """Bytes of the weight files, or of the GGUF file."""


def measure_size(source: Source, store: Store) -> ModelSize:
    """Return the size of a model; the store keeps the count of parameters, since counting takes the model's modules."""

    def fill(entry: Path) -> None:
        model = empty_model(source.path, source.settings.trust_remote_code)
        write_text(entry / "parameters.json", json.dumps(parameters_of(model)))

    entry = store.ensure("parameters", {"model": source.fingerprint}, fill, to_read=True)
    parameters = int(json.loads((entry / "parameters.json").read_text(encoding="utf-8")))
    return ModelSize(parameters, bytes_on_disk(source.path))


def parameters_of(model: nn.Module) -> int:
    """Return the number of a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def width_of(model: nn.Module) -> int:
    """Return the hidden size of a transformers model (of its text part); its embeddings' where the config names none."""
    width = getattr(model.config.get_text_config(), "hidden_size", None)  # type: ignore[union-attr, operator]  # a config
    return int(width or model.get_input_embeddings().weight.shape[-1])  # type: ignore[operator]
