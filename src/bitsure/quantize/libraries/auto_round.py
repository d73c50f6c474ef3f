"""AutoRound (Cheng et al. 2024) through its own library: rounding learned by signed gradient descent, block by block."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from bitsure.base import terminal
from bitsure.base.errors import UserError, at_least, one_of
from bitsure.config.model import ModelSettings
from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget, Quantizer

if TYPE_CHECKING:
    from torch import nn

    from bitsure.quantize.weights import Weight

WORD = 32  # rows and columns come in whole words of packed codes
BATCH = 8  # windows of a step


@dataclass
class AutoRound(Quantizer):
    """AutoRound (Cheng et al. 2024), symmetric integers."""

    bits: int = MISSING
    group_size: int = MISSING  # -1: a whole row
    iters: int = MISSING  # steps of each block
    seed: int = 0  # draws the windows of each step

    def __post_init__(self) -> None:
        """Raise UserError for values that are out of range."""
        one_of("quant.bits", self.bits, (2, 3, 4, 8))
        if self.group_size != -1 and (self.group_size < WORD or self.group_size % WORD):
            raise UserError(f"quant.group_size={self.group_size}: a multiple of {WORD}, or -1 for a whole row.")
        at_least("quant.iters", self.iters, 1)

    @property
    def name(self) -> str:
        """Bits, and the settings that differ from the presets."""
        group = {128: "", -1: "-row"}.get(self.group_size, f"-g{self.group_size}")
        iters, seed = "" if self.iters == 200 else f"-iters{self.iters}", f"-seed{self.seed}" if self.seed else ""
        return f"autoround{self.bits}{group}{iters}{seed}"

    @property
    def needs_data(self) -> bool:
        """True: rounding is learned on calibration text."""
        return True

    def libraries(self) -> tuple[str, ...]:
        """Return torch, transformers and auto-round."""
        return ("torch", "transformers", "auto-round")

    def check_model_settings(self, model: ModelSettings) -> None:
        """Raise UserError if `model.device_map` leaves weights on disk."""
        if model.device_map is not None:
            raise UserError("model.device_map: auto-round places the model itself. Leave it out.")

    def check(self, target: QuantizationTarget) -> None:
        """Raise UserError for layers whose widths are not whole words of packed codes."""
        if odd := {name: shape for name, shape in target.layer_shapes.items() if any(side % WORD for side in shape)}:
            name, shape = next(iter(odd.items()))
            raise UserError(
                f"quant={self.name}: auto-round leaves layers as they are whose widths are no multiples of {WORD}: {len(odd)} "
                f"of {target.source.name}, such as {name} with {shape[0]} × {shape[1]}. quant.backend=native of gptq has any."
            )

    def bytes_needed(self, modules: nn.Module, dtype: str) -> int:
        """Return the bytes of packed codes with float16 scales; the library writes them once before, elsewhere."""
        from bitsure.quantize.checkpoint import disk_space

        return disk_space.packed_bytes(modules, self.bits, self.group_size, 2 + self.bits / 8)

    def quantize(self, job: QuantizationJob) -> None:
        """Learn the rounding, and take the weights over from the library's GPTQ checkpoint."""
        with tempfile.TemporaryDirectory() as folder, terminal.output_to(job.log_file):
            weights = self._learn(job, Path(folder))
            job.forget_model()
            job.write(_by_own_names(weights, job.model))

    def _learn(self, job: QuantizationJob, folder: Path) -> Mapping[str, Weight]:
        import torch
        from auto_round import AutoRound as Library

        from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint

        threads = torch.get_num_threads()
        library = Library(
            job.model,
            job.source.load_tokenizer(),
            scheme="W4A16",
            bits=self.bits,
            group_size=self.group_size,
            sym=True,
            iters=self.iters,
            seed=self.seed,
            nsamples=len(job.windows),
            seqlen=job.windows.shape[1],
            batch_size=min(BATCH, len(job.windows)),
            dataset=[{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in job.windows],
            device_map="cuda" if torch.cuda.is_available() else "cpu",
            enable_torch_compile=False,
            low_cpu_mem_usage=False,
        )
        _, written = library.quantize_and_save(str(folder / "written"), format="auto_gptq")
        torch.set_num_threads(threads)  # Scores must not depend on what was quantized before them.
        return read_checkpoint(Path(written))[0]


def _by_own_names(weights: Mapping[str, Weight], model: nn.Module) -> dict[str, Weight]:
    """Return weights by the names that layers have in the model."""
    from bitsure.quantize.checkpoint.read_checkpoint import own_names

    own = own_names(model)
    return {own(f"{name}.weight").removesuffix(".weight"): weight for name, weight in weights.items()}
