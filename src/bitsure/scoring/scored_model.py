"""The model that is scored: what identifies it in the key of its records, and how it is run, here or by a server."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from typing_extensions import override

from bitsure.base.versions import installed_version
from bitsure.config.schema import ScoringSettings
from bitsure.models.facts import scoring_device
from bitsure.models.locate import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bitsure.quantize.inference.hooks import InferenceRounding
    from bitsure.scoring.engine import Engine
    from bitsure.scoring.generation.text_generator import TextGenerator
    from bitsure.scoring.served.server import Server

log = logging.getLogger(__name__)

LIBRARIES = ("lm_eval", "datasets", "torch", "transformers", "tokenizers")


@dataclass(frozen=True)
class ScoredModel:
    """A model that is scored, in full precision or quantized."""

    source: Source
    """The full-precision model."""
    weights: dict[str, Any] | None = None
    """What made the quantized weights, which is their key in the store; None in full precision, and for a server's."""
    server: Server | None = None
    """The server that runs it; None for a model that is run here."""

    @property
    def key(self) -> dict[str, Any]:
        """What identifies the model in the key of its records."""
        served = {"server": self.server.key} if self.server else {}
        return {"model": self.source.fingerprint, "weights": self.weights} | served


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rounding: InferenceRounding | None
    """The hooks that round its activations, keys and values; None if it has none."""
    server: Server | None = None
    """What runs it in another program: of the model itself only the config is here then."""


class ModelSetup(ABC):
    """How a model is loaded, and which engine scores it."""

    work: ClassVar[str]
    """What the cost of its scoring is called, by which later work of the kind is estimated."""

    @abstractmethod
    def key(self, quantized: bool) -> dict[str, Any]:
        """Return what changes the log-probabilities of a model besides its weights and the questions."""

    @abstractmethod
    def load(self, source: Source, checkpoint: Path | None, stack: ExitStack) -> LoadedModel:
        """Load a model.

        Args:
            source: The full-precision model.
            checkpoint: A directory with its quantized weights; None for full precision.
            stack: Ends the program that runs the model, if one is started for it.

        Raises:
            UserError: If the model is no causal language model.
        """

    @abstractmethod
    def engine(self, loaded: LoadedModel, max_length: int) -> Engine:
        """Return the engine for a loaded model, whose context is `max_length` tokens."""

    @abstractmethod
    def generator(self, loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> TextGenerator | None:
        """Return what writes answers with a loaded model, whose tokenizer may begin texts otherwise; None for none."""


@dataclass(frozen=True)
class LocalSetup(ModelSetup):
    """How models are loaded and run by the local engine."""

    scoring: ScoringSettings
    dtype: str
    """The computing type, such as float32."""

    work: ClassVar = "scoring"

    @override
    def key(self, quantized: bool) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "share": self.scoring.share,
            "packed_kernels": quantized and not self.scoring.dequantize,
            "libraries": {library: installed_version(library) for library in LIBRARIES},
        }

    @override
    def load(self, source: Source, checkpoint: Path | None, stack: ExitStack | None = None) -> LoadedModel:
        from bitsure.scoring.local.trial import check_causal

        if checkpoint is not None and not self.scoring.dequantize:
            from bitsure.quantize.libraries import gptqmodel

            packed = gptqmodel.load_packed(checkpoint, self.dtype, scoring_device(source.settings))
            log.info("the quantized weights stay packed, for gptqmodel's kernels")
            return LoadedModel(cast("PreTrainedModel", packed), source.load_tokenizer(), None)
        model, tokenizer = source.load(self.dtype)
        check_causal(model)
        if checkpoint is None:
            return LoadedModel(model, tokenizer, None)
        from bitsure.quantize.checkpoint.apply_checkpoint import put_into

        rounding = put_into(model, checkpoint)
        log.info("the quantized weights are unpacked into ordinary layers of %s", self.dtype)
        return LoadedModel(model, tokenizer, rounding)

    @override
    def engine(self, loaded: LoadedModel, max_length: int) -> Engine:
        from bitsure.scoring.local.local_engine import LocalEngine

        return LocalEngine(loaded.model, max_length, self.scoring.share, loaded.rounding)

    @override
    def generator(self, loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> TextGenerator:
        from bitsure.scoring.generation.text_generator import TextGenerator

        return TextGenerator(loaded.model, tokenizer, self.scoring.share, loaded.rounding)
