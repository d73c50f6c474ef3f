"""What is to be quantized, how and with which text: enough to find the result in the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any

from bitsure.base.errors import NotInstalled
from bitsure.base.versions import installed_version
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.extras import how_to_install
from bitsure.config.paths import PROJECT
from bitsure.models.facts import is_mixture, transformers_major_version
from bitsure.models.locate import Source
from bitsure.models.offloading import blocks_on_disk
from bitsure.models.weight_files import weight_files
from bitsure.quantize.calibration.calibration_text import CalibText
from bitsure.quantize.native.noise import Noise
from bitsure.quantize.quantizer import Quantizer

if TYPE_CHECKING:
    from torch import nn

FORMAT = 8  # of what the store keeps; one more whenever code of ours would make other weights from the same causes
MIXTURE_FORMAT = 2  # the same of mixtures of experts alone
INSTALL = {  # what brings a library that is not an extra of the project
    "gptqmodel": f"in {PROJECT} run make setup, then .venv/bin/python main.py with the same settings",
    "auto_gptq": f"in {PROJECT} run make setup-auto-gptq, then .venv-auto-gptq/bin/python main.py with the same settings",
}


@dataclass(frozen=True)
class Plan:
    """A model, a quantizer and its calibration text."""

    source: Source
    """The full-precision model's files."""
    quant: Quantizer
    """The quantizer."""
    calib: CalibSettings
    """The settings of the calibration text."""
    text: CalibText
    """The calibration text."""
    dtype: str
    """The type that is computed in, such as `float32`."""
    checkpoint: Source | None = None
    """The checkpoint, where it is quantized already."""

    @property
    def nsamples(self) -> int:
        """The number of calibration windows; 0 for a quantizer without data, whose errors are measured all the same."""
        return self.calib.nsamples if self.quant.needs_data else 0

    @property
    def all_experts(self) -> bool:
        """Whether a mixture's experts each learn from every token; False for a quantizer without data."""
        return self.calib.all_experts and self.quant.needs_data

    def places(self, modules: nn.Module) -> dict[str, str] | None:
        """Return where the model's weights lie while it is quantized; None: all of them in main memory.

        Args:
            modules: The model on the meta device, a mixture's experts one by one.
        """
        from bitsure.quantize.walk.mixtures import expert_lists
        from bitsure.quantize.walk.targets import find_blocks

        stay = self.quant.works_by_block and not expert_lists(modules)  # transformers writes joined experts to disk anew
        if not stay or transformers_major_version() == 4:
            return None
        if any(file.suffix != ".safetensors" for file in weight_files(self.source.path)[:1]):  # a plan needs no weights
            return None
        return blocks_on_disk(modules, find_blocks(modules)[0])

    @property
    def made_from(self) -> dict[str, Any]:
        """The key of the weights in the store. Raises NotInstalled for a library that is missing."""
        return {
            "format": FORMAT,
            **({"mixture_format": MIXTURE_FORMAT} if is_mixture(self.source.path) else {}),
            "model": self.source.fingerprint,
            "quant": self._identity(),
            "text": {
                "sha256": self.text.fingerprint,
                "nsamples": self.nsamples,
                "seqlen": self.calib.seqlen,
                "seed": self.calib.seed,
                **({"all_experts": True} if self.all_experts else {}),
            },
            "dtype": self.dtype,
            "libraries": library_versions(self.quant),
        }

    @property
    def matched(self) -> Plan | None:
        """The plan of the quantizer that this one is matched to; None for most."""
        quantizer = self.quant.matched_quantizer
        return replace(self, quant=quantizer) if quantizer else None

    def noise(self, seed: int, scale: float = 1.0) -> Plan:
        """Return the plan of a noise control of this quantizer, of `scale` times its output error."""
        return replace(self, quant=Noise(like=self.quant, seed=seed, scale=scale))

    def _identity(self) -> dict[str, Any]:
        identity = self.quant.identity(self.checkpoint)
        return identity | {"like": self.matched.made_from} if self.matched else identity


def library_versions(quant: Quantizer) -> dict[str, str]:
    """Return the versions of what makes a quantizer's weights.

    Raises:
        NotInstalled: If a library is missing, or cannot be used beside the others; the message says what installs it.
    """
    versions = {library: _version(library, quant.name) for library in sorted(set(quant.libraries()))}
    if "auto_gptq" in versions and int(versions["transformers"].split(".")[0]) > 4:
        raise _missing("auto_gptq", quant.name, f"which does not import beside transformers {versions['transformers']}")
    return versions


def _version(library: str, quantizer: str) -> str:
    try:
        return installed_version(library)
    except PackageNotFoundError as error:
        raise _missing(library, quantizer, "which is not installed") from error


def _missing(library: str, quantizer: str, reason: str) -> NotInstalled:
    return NotInstalled(f"quant={quantizer} needs {library}, {reason}: {INSTALL.get(library) or how_to_install(library)}")
