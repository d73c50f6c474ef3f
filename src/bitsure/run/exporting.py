"""Export a run's quantized model as transformers, vLLM or llama.cpp load it, with a model card."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, hash_file, write_text
from bitsure.base.progress import working
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.run_config import read_run_config
from bitsure.models.locate import Source, locate_model
from bitsure.quantize.checkpoint.publish import EXPORTABLE, publish
from bitsure.records.directory_kinds import is_sweep, wrong_directory
from bitsure.report.rounded import at_run_time
from bitsure.results import Provenance, Quantization, Verdict, read, read_if_there
from bitsure.results.verdict import NON_INFERIOR
from bitsure.run.model_card import model_card, next_step

GGUF = "gguf"  # the layout of a run that wrote a GGUF file


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
                settings = publish(_source(run), checkpoint, unfinished, run.name, format_name)
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
