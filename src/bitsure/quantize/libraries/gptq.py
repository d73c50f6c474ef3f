"""GPTQ (Frantar et al. 2023), by gptqmodel, by auto-gptq, or by our own solver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bitsure.base.errors import UserError
from bitsure.config.gptq_settings import GptqSettings
from bitsure.config.model import ModelSettings
from bitsure.quantize.libraries.auto_gptq import AutoGptq
from bitsure.quantize.libraries.gptq_library import GptqLibrary
from bitsure.quantize.libraries.gptqmodel import GptqModel
from bitsure.quantize.native.chain_quantizer import RoundingQuantizer
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.weights import ElementWeight, IntegerWeight

LIBRARIES: dict[str, GptqLibrary] = {"gptqmodel": GptqModel(), "auto_gptq": AutoGptq()}


@dataclass
class Gptq(RoundingQuantizer, GptqSettings):
    """GPTQ (Frantar et al. 2023)."""

    @property
    def _library(self) -> GptqLibrary | None:
        """The library that does the work; None for our own solver."""
        return LIBRARIES.get(self.backend)

    @property
    def has_packed_kernels(self) -> bool:
        """Whether gptqmodel made the checkpoint, whose kernels read it."""
        return self.backend == "gptqmodel"

    @property
    def works_by_block(self) -> bool:
        """Whether it is our own solver, and no transform rewrites other blocks' weights."""
        return self._library is None and super().works_by_block

    @property
    def changes_model(self) -> bool:
        """Whether the model is changed block by block, or its layers are replaced."""
        return self._library is None or self._library.changes_model

    def libraries(self) -> tuple[str, ...]:
        """Return torch, transformers, and the library that does the work."""
        return ("torch", "transformers", *(self._library.packages if self._library else ()))

    def with_bits(self, bits: int) -> RoundingQuantizer | None:
        """Return GPTQ with other bits, by our own solver; None as in `RoundingQuantizer`."""
        return replace(self, backend="native").with_bits(bits) if self._library else super().with_bits(bits)

    def check_model_settings(self, model: ModelSettings) -> None:
        """Raise UserError if the model needs remote code, and the library loads it without."""
        super().check_model_settings(model)
        if model.trust_remote_code and self._library and self._library.loads_model:
            raise UserError(
                f"quant.backend={self.backend}: it loads the model itself, without remote code. quant.backend=native quantizes "
                "what model.trust_remote_code=true loads."
            )

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError for layers or types that the backend cannot do."""
        super().check(target)
        if self._library:
            self._library.check(self, target)

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of the backend's checkpoint."""
        return self._library.bytes_needed(self, modules, dtype) if self._library else super().bytes_needed(modules, dtype)

    def round_weight(
        self, weight: torch.Tensor, hessian: torch.Tensor, shrink: tuple[torch.Tensor, ...], names: str
    ) -> IntegerWeight | ElementWeight:
        """Round column by column, so that later columns make up for the error of earlier ones."""
        from bitsure.quantize.native.gptq_solver import round_with_hessian

        return round_with_hessian(weight, hessian, self, shrink, names)

    def quantize(self, job: QuantizationJob) -> None:
        """Quantize with the backend."""
        if self._library:
            return self._library.quantize(self, job)
        from bitsure.quantize.native import chain

        return chain.quantize(job.model, self, job.windows, job.parts, job.directory, job.advance)
