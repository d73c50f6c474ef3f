"""Quantize a model, write it to the store as a packed checkpoint, read it back and prove what changed."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as read_version
from pathlib import Path
from typing import TYPE_CHECKING

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import write_text
from bitsure.base.memo import Memo
from bitsure.base.resources import measured
from bitsure.base.store import Store
from bitsure.base.work import EntryCost, parameters_of, quantizing_work, width_of, write_cost
from bitsure.config.other_quantizers import Bnb, Cast, Hqq, Noise, Prequantized
from bitsure.config.paths import PROJECT
from bitsure.config.quantizers import Chain, Gptq, Kept, NoQuant, Quant, Rtn
from bitsure.config.schema import CalibSettings, ModelSettings
from bitsure.models import facts as model_facts
from bitsure.models import source as models
from bitsure.models.source import Source
from bitsure.quantize.calibration.windows import CalibText, draw_windows

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FORMAT = 8  # of what the store keeps; one more whenever code of ours would make other weights from the same causes
LIBRARIES = {  # that make the weights; of GPTQ by its backend; those that need data run the model, with transformers
    Kept: ("torch",),
    Rtn: ("torch",),
    "gptqmodel": ("torch", "transformers", "gptqmodel"),
    "native": ("torch", "transformers"),
    "auto_gptq": ("torch", "transformers", "auto_gptq"),
    Cast: ("torch",),
    Prequantized: ("torch",),
    Bnb: ("torch", "bitsandbytes"),
    Hqq: ("torch", "hqq"),
    Noise: ("torch", "transformers"),
}
INSTALL = {  # what brings a library, where it is not an extra of the project
    "gptqmodel": "make setup, then .venv/bin/python main.py with the same settings",
    "auto_gptq": "make setup-auto-gptq, then .venv-auto-gptq/bin/python main.py with the same settings",
}


version = cache(read_version)  # a file is read for each


@dataclass(frozen=True)
class Plan:
    """What is to be quantized, how and with which text: enough to find the result in the store before any work."""

    source: Source
    quant: Quant
    calib: CalibSettings
    text: CalibText
    dtype: str
    ready: Source | None = None  # the checkpoint, where it is quantized already

    @property
    def nsamples(self) -> int:
        """How many windows the quantizer needs; plain rounding needs none, its errors are still measured."""
        return self.calib.nsamples if self.quant.needs_data else 0

    @property
    def made_from(self) -> dict:
        """The key of the weights in the store."""
        return {
            "format": FORMAT,
            "model": self.source.fingerprint,
            "quant": self._quant,
            "text": {
                "sha256": self.text.fingerprint,
                "nsamples": self.nsamples,
                "seqlen": self.calib.seqlen,
                "seed": self.calib.seed,
            },
            "dtype": self.dtype,
            "libraries": self._libraries,
        }

    @property
    def _libraries(self) -> dict[str, str]:
        """The versions of what makes the weights. Raises UserError for what is missing, with the commands that bring it."""
        kind = self.quant.backend if isinstance(self.quant, Gptq) else type(self.quant)
        needed = {*LIBRARIES[kind], *(("transformers",) if self.quant.needs_data else ())}
        found = {library: self._version(library) for library in sorted(needed)}
        if kind == "auto_gptq" and int(found["transformers"].split(".")[0]) > 4:
            raise self._needs("auto_gptq", f"which does not import beside transformers {found['transformers']}")
        return found

    def _version(self, library: str) -> str:
        try:
            return version(library)
        except PackageNotFoundError as error:
            raise self._needs(library, "which is not installed") from error

    def _needs(self, library: str, but: str) -> UserError:
        command = INSTALL.get(library, f"python -m pip install -e '.[{library}]'")
        return UserError(f"quant={self.quant.name} needs {library}, {but}: in {PROJECT} run {command}")

    @property
    def _quant(self) -> dict:
        settings = {"method": type(self.quant).__name__.lower(), **asdict(self.quant)}
        match self.quant:
            case Noise():
                return settings | {"like": self.like.made_from}
            case Prequantized():
                return {"method": settings["method"], "checkpoint": self.ready.fingerprint}
        return settings

    @property
    def like(self) -> Plan:
        """The quantizer whose noise control this is."""
        return replace(self, quant=self.quant.like)

    def noise(self, seed: int) -> Plan:
        """A noise control of this quantizer."""
        return replace(self, quant=Noise(like=self.quant, seed=seed))


@dataclass(frozen=True)
class Quantized:
    """A quantized model in the store, or where it was quantized already."""

    checkpoint: Path  # a directory for `checkpoints.put_into`
    report: dict  # quantization.json


def ensure(plan: Plan, store: Store, log_file: Path, to_read: bool = False) -> Quantized:
    """The quantized model, from the store if it has it; made by one process at a time.

    to_read: whether the weights are about to be loaded. Raises UserError if the quantizer cannot or did not do its work.
    """
    directory = store.find("weights", plan.made_from, to_read)
    if directory is None:
        like = ensure(plan.like, store, log_file).report if isinstance(plan.quant, Noise) else None
        with store.lock("weights", plan.made_from):
            directory = store.find("weights", plan.made_from, to_read)  # made by another process meanwhile
            if directory is None:
                parts = store.path("unfinished", plan.made_from)
                with store.create("weights", plan.made_from) as unfinished:
                    _quantize(plan, like, unfinished, parts, log_file)
                shutil.rmtree(parts, ignore_errors=True)
                directory = store.path("weights", plan.made_from)
    else:
        log.info("quantized weights are in the store: %s", directory)
    checkpoint = plan.ready.path if isinstance(plan.quant, Prequantized) else directory
    return Quantized(checkpoint, json.loads((directory / "quantization.json").read_text()))


def check_model(model: ModelSettings, quant: Quant, noise_control: bool) -> None:
    """Raise UserError if the model's settings rule the quantizer out, before the model is looked for."""
    if (noise_control or isinstance(quant, Noise)) and model.device_map is not None:
        raise UserError("model.device_map: noise is added to weights in memory, not to those it leaves on disk. Leave one out.")
    rewriting = [one for one in getattr(quant, "transforms", ()) if one in ("smooth", "reassemble")]
    if rewriting and model.device_map is not None:
        raise UserError(
            f"model.device_map: {rewriting[0]} rewrites weights in memory, not those it leaves on disk. Leave one out."
        )
    if model.unquantizable is not None and not isinstance(quant, NoQuant):
        raise UserError(
            f"quant={quant.name}: {model.name} cannot be quantized here: {model.unquantizable}. "
            "quant=none scores it in full precision."
        )
    if model.trust_remote_code and isinstance(quant, Gptq) and quant.backend != "native":
        raise UserError(
            f"quant.backend={quant.backend}: it loads the model itself, without remote code. quant.backend=native quantizes "
            "what model.trust_remote_code=true loads."
        )


def check(plan: Plan, store: Store, memo: Memo | None = None) -> None:
    """Raise UserError if the quantizer cannot do the model's layers, or the text is too short, or the store's disk too small.

    No weights are loaded. memo: knows what other cells of a sweep have in common with it.
    """
    from bitsure.quantize.checkpoint import disk_space as space
    from bitsure.quantize.checkpoint import prequantized
    from bitsure.quantize.inference import hooks
    from bitsure.quantize.libraries import auto_gptq, gptqmodel
    from bitsure.quantize.native import cast as casts
    from bitsure.quantize.walk.targets import block_linears, matrix, unknown_weights

    if isinstance(plan.quant, Cast):
        casts.check(plan.quant, plan.source.path, plan.dtype)
    source, code = plan.source, plan.source.settings.trust_remote_code
    memo = memo or Memo()
    model = memo(models.empty_model, source.path, code)
    if plan.ready:
        prequantized.check(plan.ready, model, plan.source.name)
    if not isinstance(plan.quant, Cast) and (unknown := unknown_weights(model)):
        raise UserError(
            f"quant={plan.quant.name}: {plan.source.name} has {len(unknown)} weights in its blocks that are no linear "
            f"layers and would stay as they are: {', '.join(unknown[:5])}{' …' if len(unknown) > 5 else ''}. It is not scored."
        )
    shapes = {name: tuple(matrix(layer).shape) for name, layer in block_linears(model).items()}
    match plan.quant:
        case Gptq(backend="gptqmodel") as quant:
            gptqmodel.check_fits(quant, shapes)
        case Gptq(backend="auto_gptq") as quant:
            auto_gptq.check_fits(quant, model.config.model_type, plan.dtype, shapes)
    if isinstance(plan.quant, Chain) and plan.quant.kv is not None:
        hooks.check_keys_and_values(plan.quant.kv, model)
    if isinstance(plan.quant, Noise) and not store.find("weights", plan.like.made_from):
        check(plan.like, store, memo)
    space.check(model, plan.quant, plan.dtype, store.root)
    model_facts.check_memory(source.settings, plan.dtype, "cpu")
    # how much text there is does not depend on the order in which it is drawn
    _, held_out = memo(_windows, source.path, code, plan.text, replace(plan.calib, seed=0), plan.nsamples)
    if held_out.shape[1] < plan.calib.seqlen:
        log.warning("calib.seqlen=%d is longer than the model's context: %d tokens it is", plan.calib.seqlen, held_out.shape[1])


def _windows(
    model: Path, code: bool, text: CalibText, calib: CalibSettings, nsamples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a checked tokenizer. code: whether the model's own is run."""
    tokenizer = models.load_tokenizer(model, code)
    model_facts.check_tokenizer(tokenizer, model)
    return draw_windows(text, calib, nsamples, tokenizer, model_facts.context_length(model))


def _quantize(plan: Plan, like: dict | None, out: Path, parts: Path, log_file: Path) -> None:
    from bitsure.quantize.checkpoint import prequantized
    from bitsure.quantize.checkpoint import storage as checkpoints
    from bitsure.quantize.inference.scheme import InferenceScheme
    from bitsure.quantize.libraries import auto_gptq, bnb, gptqmodel, hqq
    from bitsure.quantize.native import cast as casts
    from bitsure.quantize.native import chain, noise
    from bitsure.quantize.proof import weight_changes as verify

    source, text, begun = plan.source, plan.text, time.monotonic()
    with terminal.output_to(log_file):
        model, _ = models.load(source.path, plan.dtype, "cpu", source.settings)
        windows, held_out = _windows(source.path, source.settings.trust_remote_code, text, plan.calib, plan.nsamples)
    with (
        measured() as use,
        terminal.progress(f"quantizing {source.name}, {plan.quant.name}", total=None) as advance,
    ):
        match plan.quant:
            case Gptq(backend="gptqmodel") as quant:
                gptqmodel.quantize(source.path, quant, plan.dtype, windows, out, log_file, advance)
            case Gptq(backend="auto_gptq") as quant:
                auto_gptq.quantize(model, quant, windows, out, log_file, advance)
                with terminal.output_to(log_file):
                    model, _ = models.load(source.path, plan.dtype, "cpu", source.settings)  # its layers were replaced
            case Chain() as quant:
                chain.quantize(model, quant, windows, parts, out, advance)
                if quant.needs_data:  # the model was changed on the way, block by block
                    with terminal.output_to(log_file):
                        model, _ = models.load(source.path, plan.dtype, "cpu", source.settings)
            case Cast() as quant:
                checkpoints.write(out, *casts.cast(model, quant))
            case Bnb() as quant:
                with terminal.output_to(log_file):
                    checkpoints.write(out, bnb.quantize(model, quant))
            case Hqq() as quant:
                with terminal.output_to(log_file):
                    checkpoints.write(out, hqq.quantize(model, quant))
            case Prequantized():
                pass  # it is read where it is
            case Noise() as quant:
                noise.match(model, like, held_out, quant.seed, out)
            case quant:
                raise AssertionError(f"no quantizer for {quant}")
    made = plan.ready.path if isinstance(plan.quant, Prequantized) else out
    weights, others = checkpoints.load(made, model)
    scheme = InferenceScheme.read(made)
    stored_bits = models.stored_bits(source.path, parameters_of(model))
    report = verify.report(model, weights, others, held_out, isinstance(plan.quant, Cast), scheme, stored_bits)
    if isinstance(plan.quant, Prequantized):
        prequantized.check_parent(plan.ready, report, source.name)
    report["quantizer"] = plan.quant.name
    report["not_applied"] = _not_applied(plan)
    report["calib_data"] = {"name": text.name, "windows": len(windows), "seqlen": held_out.shape[1]}
    report |= asdict(use)
    tokens = windows.numel() + held_out.numel()
    work = quantizing_work(parameters_of(model), width_of(model), tokens)
    write_cost(out, EntryCost(plan.quant.name, time.monotonic() - begun, work))
    report["bytes_on_disk"] = sum(file.stat().st_size for file in made.rglob("*.safetensors"))
    write_text(out / "quantization.json", json.dumps(report, indent=1))


def _not_applied(plan: Plan) -> list[str]:
    """What the quantizer rounds besides weights where it is deployed, and this does not."""
    from bitsure.quantize.checkpoint import prequantized

    match plan.quant:
        case Prequantized():
            return prequantized.not_applied(plan.ready)
        case Bnb(type="int8"):
            return ["activations"]
    return []
