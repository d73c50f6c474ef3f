"""Export a run's quantized model as transformers, vLLM or llama.cpp load it, with a model card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, hash_file, write_text
from bitsure.base.progress import working
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.run_config import read_run_config
from bitsure.models.facts import own_dtype
from bitsure.models.locate import Source, locate_model
from bitsure.models.weight_files import weight_files
from bitsure.records.saved_run import is_sweep, wrong_directory
from bitsure.report.rounded import at_run_time
from bitsure.results import Provenance, Quantization, Verdict, read, read_if_there
from bitsure.results.verdict import NON_INFERIOR
from bitsure.run.model_card import model_card, next_step

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitsure.quantize.weights import IntegerWeight

GGUF = "gguf"  # the layout of a run that wrote a GGUF file
EXPORTABLE = (
    "Weights can be exported that are integers with a scale a group or row (gptq2 … gptq8, rtn2 … rtn8, clip3, w2 … w8), "
    "in a run that rounds no activations, keys or values"
)


@dataclass(frozen=True)
class _RunToExport:
    """What the files of a run say of its quantized model."""

    directory: Path
    config: dict[str, Any]
    provenance: Provenance
    quantization: Quantization

    @property
    def name(self) -> str:
        """The directory and the quantizer, for messages."""
        return f"{self.directory}: {self.quantization.quantizer}"

    @property
    def store(self) -> Store:
        """The store that the checkpoint was written into."""
        written = self.quantization.checkpoint
        above = 2 if self.wrote_gguf else 1  # the checkpoint is a file in the store's entry, or the entry
        return Store(Path(written).parents[above] if written else str(self.config.get("paths", {}).get("store")))

    @property
    def wrote_gguf(self) -> bool:
        """Whether the checkpoint is a GGUF file."""
        return bool(self.quantization.tensor_types)


def export_run(run_dir: Path, out: Path, format_name: str | None = None) -> None:
    """Write a run's quantized model into a directory, whole or not at all, and say on the terminal where it is.

    Args:
        run_dir: The run's directory.
        out: The directory to write; it may exist if it is empty.
        format_name: The layout, `gptq`, `compressed-tensors` or `gguf`; None for the run's GGUF file, or for the first of the
            others that has room for the weights.

    Raises:
        UserError: If the run has no quantized model, its checkpoint or its full-precision model is not there any more, no
            layout has room for the weights, or the directory cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and is not empty. Give a directory that is new or empty.")
    run = _read_run(run_dir)
    _check_exportable(run, format_name)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with working("exporting"), tempfile.TemporaryDirectory() as logs, terminal.output_to(Path(logs, "libraries.log")):
        checkpoint = _checkpoint(run)
        with atomic_path(out) as unfinished:
            unfinished.mkdir()
            if run.wrote_gguf:
                settings = _copy_gguf(checkpoint, unfinished)
            else:
                settings = _write(_source(run), checkpoint, unfinished, run, format_name)
            weights = (file for file in sorted(unfinished.iterdir()) if file.suffix in (".safetensors", ".gguf"))
            hashes = {file.name: hash_file(file) for file in weights}
            write_text(unfinished / "README.md", model_card(run_dir, out.name, settings, hashes))
    layout = settings["quant_method"]
    lines = [f"exported as {layout}: {out}", f"next: {next_step(layout, out)}"]
    verdict = read_if_there(run_dir / "verdict.json", Verdict)
    if verdict and verdict.verdict != NON_INFERIOR:
        lines.append(f"verdict of the run: {verdict.badge}. {verdict.sentence}")
    terminal.console().print("\n".join(lines), markup=False, soft_wrap=True)


def _read_run(run_dir: Path) -> _RunToExport:
    if is_sweep(run_dir) or not (run_dir / "metrics.json").is_file():
        raise wrong_directory(run_dir, "a finished run's is needed")
    quantization = read_if_there(run_dir / "quantization.json", Quantization)
    if quantization is None:
        raise UserError(
            f"{run_dir} is a run in full precision, or of a server's model: it made no checkpoint. Give the run of a quantizer."
        )
    provenance = read(run_dir / "provenance.json", Provenance)
    return _RunToExport(run_dir, read_run_config(run_dir / "config.yaml"), provenance, quantization)


def _check_exportable(run: _RunToExport, format_name: str | None) -> None:
    """Raise UserError for what quantization.json shows to have no published layout, before anything is loaded."""
    proof = run.quantization
    if "checkpoint" in (run.provenance.weights or {}).get("quant", {}):
        raise UserError(f"{run.name} was quantized by others and is a published checkpoint already: copy {proof.checkpoint}.")
    if run.wrote_gguf and format_name not in (None, GGUF):
        raise UserError(
            f"{run.name} wrote a GGUF file, whose blocks {format_name} has no room for: export it with --format gguf."
        )
    if format_name == GGUF and not run.wrote_gguf:
        raise UserError(f"{run.name} wrote no GGUF file; quant=q4_k_m and the other kinds of docs/gguf.md write one.")
    if rounds := at_run_time(proof):
        weights = "To export its weights, run the quantizer without quant.activations and quant.kv, such as quant=w4"
        way_out = weights if proof.modules_quantized else "Its weights are those of full precision"
        raise UserError(
            f"{run.name} rounds {' and '.join(rounds)} while the model runs, in bitsure's way, which no checkpoint tells "
            f"other programs. {way_out}. {EXPORTABLE}."
        )


def _checkpoint(run: _RunToExport) -> Path:
    """Return the store's entry of the run's weights, every file of it hashed."""
    made_from = run.provenance.weights
    entry = run.store.find("weights", made_from, to_read=True)
    if entry is None:
        raise UserError(
            f"{run.directory}: its checkpoint {run.store.path('weights', made_from)} is no longer in the store, or is damaged. "
            "The run's command with another hydra.run.dir makes it again; give that run's directory."
        )
    return entry


def _copy_gguf(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Copy a GGUF file, which holds config and tokenizer too, and return what stands for a `quantization_config`."""
    [file] = checkpoint.glob("*.gguf")
    shutil.copyfile(file, out / file.name)
    return {"quant_method": GGUF}


def _source(run: _RunToExport) -> Source:
    """Return the full-precision model's files. Raises UserError if they are not those that were quantized."""
    given = run.config.get("model", {})
    settings = ModelSettings(**{key: given[key] for key in ("name", "path", "repo", "file", "revision") if key in given})
    source = locate_model(settings, run.config.get("paths", {}).get("hub_mirror"), run.store)
    if run.provenance.model and run.provenance.model.fingerprint != source.fingerprint:
        raise UserError(f"{source.path} is not the model that {run.directory} quantized: its files have changed since.")
    return source


def _write(source: Source, checkpoint: Path, out: Path, run: _RunToExport, format_name: str | None) -> dict[str, Any]:
    """Write config, tokenizer and weights, and return the `quantization_config`; see `export_run`."""
    from safetensors.torch import save_file

    from bitsure.models.load import load_model
    from bitsure.quantize.checkpoint.apply_checkpoint import put_into
    from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
    from bitsure.quantize.layouts.known import layout_of
    from bitsure.quantize.walk.mixtures import separate_experts
    from bitsure.quantize.weights.integer import GPTQ_TENSORS

    source.check_content()
    model, tokenizer = load_model(source.path, own_dtype(source.settings, source.path), "cpu", source.settings)
    separate_experts(model)  # Layouts name each expert's layers.
    contents = load_checkpoint(checkpoint, model)
    weights = {name: cast("IntegerWeight", weight) for name, weight in contents.weights.items() if weight.fits_gptq}
    if missing := contents.weights.keys() - weights.keys():
        first = min(missing)
        needs = ", ".join(sorted(contents.weights[first].tensors().keys() - GPTQ_TENSORS))
        raise UserError(f"{run.name} needs {needs} in {first}, which no layout has. {EXPORTABLE}.")
    scheme = contents.scheme
    if scheme.activations or scheme.kv or scheme.divisions or scheme.reassembled or scheme.rotations.inputs:
        raise UserError(f"{run.name} changes layers' inputs while the model runs, which no layout can say. {EXPORTABLE}.")
    own = model.state_dict().keys()
    put_into(model, checkpoint)
    if added := sorted(model.state_dict().keys() - own):
        raise UserError(
            f"{run.name}: rotating the model gave it {added[0]}, for which other programs' {type(model).__name__} has no place."
        )
    tensors, settings = _lay_out(model, weights, run, format_name)
    others = {name: tensor for name, tensor in _without_ties(model).items() if name.removesuffix(".weight") not in weights}
    published = _published_names(source, model, weights) if layout_of(settings, out).published_names else {}
    named = {_published(name, published): tensor for name, tensor in (others | tensors).items()}
    save_file(named, out / "model.safetensors", metadata={"format": "pt"})
    model.config.quantization_config = settings
    model.config.save_pretrained(out)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.copymode(out / "config.json", out / "model.safetensors")  # safetensors lets nobody else read its files
    _check_read_back(out, {_published(name, published): weight for name, weight in weights.items()})
    return settings


def _published_names(source: Source, model: nn.Module, layers: Collection[str]) -> dict[str, str]:
    """Return module → its name in the files of a mixture of experts; other models' modules keep their names.

    Raises:
        UserError: If its files have one tensor for all experts, so that their layers have no names there.
    """
    from safetensors import safe_open

    from bitsure.quantize.checkpoint.read_checkpoint import own_names
    from bitsure.quantize.walk.mixtures import expert_lists

    published: dict[str, str] = {}
    if not expert_lists(model):
        return published
    own = own_names(model)
    for path in weight_files(source.path):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                published |= {own(key).rpartition(".")[0]: key.rpartition(".")[0] for key in file.keys()}  # noqa: SIM118 - not a dict
    if missing := sorted(name for name in layers if name not in published):
        raise UserError(
            f"{source.name} has one tensor for all experts in its files, so that transformers loads no quantized {missing[0]}. "
            "Export it with --format gptq, which GPTQModel loads."
        )
    return published


def _published(name: str, published: Mapping[str, str]) -> str:
    """Return the published name of a module, or of a tensor of it."""
    module, _, tensor = name.rpartition(".")
    return published.get(name) or (f"{published[module]}.{tensor}" if module in published else name)


def _lay_out(
    model: nn.Module, weights: Mapping[str, IntegerWeight], run: _RunToExport, format_name: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the weights in the layout that was asked for, or in the first that has room, and its settings."""
    from bitsure.quantize.layouts.known import EXPORTED
    from bitsure.quantize.walk.targets import is_linear

    unquantized = [name for name, module in model.named_modules() if is_linear(module) and name not in weights]
    other = next((name for name in weights if type(model.get_submodule(name)).__name__ != "Linear"), None)
    reasons = []
    for layout in EXPORTED:
        if format_name in (None, layout.quant_method):
            try:
                if layout.only_linear and other:
                    raise UserError(f"{other} is a {type(model.get_submodule(other)).__name__}, into which it is not loaded")
                return layout.put(weights, unquantized)
            except UserError as error:
                reasons.append(f"{layout.quant_method}: {error}.")
    others = [layout.quant_method for layout in EXPORTED if format_name not in (None, layout.quant_method)]
    ways_out = f" Without --format, or with --format {others[0]}, another layout is tried." if others else ""
    raise UserError(f"{run.name} has weights that do not fit. {' '.join(reasons)}{ways_out}")


def _without_ties(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's tensors, of those that are one tensor the first alone: loading ties them again."""
    tensors: dict[Hashable, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        # Empty tensors have no memory to share, and a view of another shape is a tensor of its own.
        place = (tensor.data_ptr(), tensor.shape) if tensor.numel() else name
        tensors.setdefault(place, (name, tensor))
    return {name: tensor.contiguous() for name, tensor in tensors.values()}


def _check_read_back(out: Path, weights: Mapping[str, IntegerWeight]) -> None:
    """Raise UserError if a weight comes back from disk other than it was scored."""
    import torch

    from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint

    back, _ = read_checkpoint(out)
    differ = [
        name
        for name, weight in weights.items()
        if name not in back or not torch.equal(back[name].dequantize(), weight.dequantize())
    ]
    if differ:
        raise UserError(f"{', '.join(differ[:5])} came back from disk otherwise than written. Nothing is exported.")
