"""The model that is scored: what identifies it in the key of its records, and loading it for the local engine."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as read_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bitsure.config.schema import ScoringSettings
from bitsure.models.locate import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bitsure.quantize.inference.hooks import InferenceRounding
    from bitsure.scoring.engine import Engine
    from bitsure.scoring.generation.text_generator import TextGenerator

log = logging.getLogger(__name__)

LIBRARIES = ("lm_eval", "datasets", "torch", "transformers", "tokenizers")
version = cache(read_version)  # each call reads a file


@dataclass(frozen=True)
class ScoredModel:
    """A model that is scored, in full precision or quantized."""

    source: Source
    """The full-precision model."""
    weights: dict[str, Any] | None = None
    """What made the quantized weights, which is their key in the store; None in full precision."""

    @property
    def key(self) -> dict[str, Any]:
        """What identifies the model in the key of its records."""
        return {"model": self.source.fingerprint, "weights": self.weights}


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rounding: InferenceRounding | None
    """The hooks that round its activations, keys and values; None if it has none."""


@dataclass(frozen=True)
class LocalSetup:
    """How models are loaded and run by the local engine."""

    scoring: ScoringSettings
    dtype: str
    """The computing type, such as float32."""

    def key(self, quantized: bool) -> dict[str, Any]:
        """Return what changes the log-probabilities of a model besides its weights and the questions."""
        return {
            "dtype": self.dtype,
            "share": self.scoring.share,
            "packed_kernels": quantized and not self.scoring.dequantize,
            "libraries": {library: version(library) for library in LIBRARIES},
        }

    def load(self, source: Source, checkpoint: Path | None) -> LoadedModel:
        """Load a model.

        Args:
            source: The full-precision model.
            checkpoint: A directory with its quantized weights; None for full precision.
        """
        if checkpoint is not None and not self.scoring.dequantize:
            from bitsure.quantize.libraries import gptqmodel

            packed = gptqmodel.load_packed(checkpoint, self.dtype)
            log.info("the quantized weights stay packed, for gptqmodel's kernels")
            return LoadedModel(cast("PreTrainedModel", packed), source.load_tokenizer(), None)
        model, tokenizer = source.load(self.dtype)
        if checkpoint is None:
            return LoadedModel(model, tokenizer, None)
        from bitsure.quantize.checkpoint.apply_checkpoint import put_into

        rounding = put_into(model, checkpoint)
        log.info("the quantized weights are unpacked into ordinary layers of %s", self.dtype)
        return LoadedModel(model, tokenizer, rounding)

    def engine(self, loaded: LoadedModel, max_length: int) -> Engine:
        """Return the engine for a loaded model, whose context is `max_length` tokens."""
        from bitsure.scoring.local.local_engine import LocalEngine

        return LocalEngine(loaded.model, max_length, self.scoring.share, loaded.rounding)

    def generator(self, loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> TextGenerator:
        """Return what writes answers with a loaded model, whose tokenizer may begin texts otherwise."""
        from bitsure.scoring.generation.text_generator import TextGenerator

        return TextGenerator(loaded.model, tokenizer, self.scoring.share, loaded.rounding)
