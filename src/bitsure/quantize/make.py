"""Quantize a model, write it to the store as a checkpoint, read it back and prove what changed."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitsure.base import resources, terminal, work
from bitsure.base.errors import UserError
from bitsure.base.progress import progress, working
from bitsure.base.store import Store
from bitsure.models.gguf.gguf_header import is_gguf, read_gguf
from bitsure.models.gguf.tensor_types import summarize_types
from bitsure.models.size import parameters_of, width_of
from bitsure.models.weight_content import check_finite
from bitsure.models.weight_files import stored_bits
from bitsure.quantize.check import windows_of
from bitsure.quantize.libraries.gguf_checkpoint import unused_parts
from bitsure.quantize.modules import empty_modules
from bitsure.quantize.plan import Plan
from bitsure.quantize.quantizer import QuantizationJob
from bitsure.results.experts import ExpertCalibration, Experts
from bitsure.results.quantization import CalibrationText, Quantization
from bitsure.results.result import read, write

log = logging.getLogger(__name__)

PROOF = "quantization.json"  # in the directory of the store's entry


@dataclass(frozen=True)
class Quantized:
    """A quantized model in the store, or where it was quantized already."""

    checkpoint: Path
    """A directory for `bitsure.quantize.checkpoint.apply_checkpoint.put_into`."""
    proof: Quantization
    """quantization.json."""
    shipped: Path
    """What other programs load: the GGUF file where there is one, otherwise `checkpoint`."""


def ensure_quantized(plan: Plan, store: Store, log_file: Path, to_read: bool = False) -> Quantized:
    """Return the quantized model, from the store if it has it; one process at a time makes it.

    Args:
        plan: What is to be quantized.
        store: Where the result is kept.
        log_file: Where the output of libraries goes.
        to_read: Whether the weights are about to be loaded, so that they are checked for damage.

    Raises:
        UserError: If the quantizer cannot or did not do its work.
    """
    directory = store.find("weights", plan.made_from, to_read)
    if directory is None:
        matched = ensure_quantized(plan.matched, store, log_file).proof if plan.matched else None
        with store.lock("weights", plan.made_from):
            directory = store.find("weights", plan.made_from, to_read)  # another process may have made it meanwhile
            if directory is None:
                parts = store.path("unfinished", plan.made_from)
                with store.create("weights", plan.made_from) as unfinished:
                    _make(plan, matched, unfinished, parts, store, log_file)
                shutil.rmtree(parts, ignore_errors=True)
                directory = store.path("weights", plan.made_from)
    else:
        log.info("quantized weights are in the store: %s", directory)
        if to_read and plan.checkpoint and plan.quant.reads_checkpoint:
            plan.checkpoint.check_content()
    checkpoint = _checkpoint(plan, directory)
    return Quantized(checkpoint, read(directory / PROOF, Quantization), _gguf_file(plan, directory) or checkpoint)


def _checkpoint(plan: Plan, directory: Path) -> Path:
    """Where the weights lie that are scored."""
    return plan.checkpoint.path if plan.checkpoint and plan.quant.reads_checkpoint else directory


def _make(plan: Plan, matched: Quantization | None, directory: Path, parts: Path, store: Store, log_file: Path) -> None:
    """Quantize, and write the checkpoint, quantization.json and what it cost into a directory."""
    source, begun = plan.source, time.monotonic()
    for files, dtype in ((source, plan.dtype), (plan.checkpoint, None)):
        if files:
            files.check_content()
            check_finite(files.path, dtype)
    with terminal.output_to(log_file):
        windows, held_out = windows_of(source.path, source.settings.trust_remote_code, plan.text, plan.calib, plan.nsamples)
    job = QuantizationJob(
        source,
        plan.dtype,
        windows,
        held_out,
        directory,
        parts,
        store,
        log_file,
        matched=matched,
        checkpoint=plan.checkpoint.path if plan.checkpoint else None,
        all_experts=plan.all_experts,
        calibration={"name": plan.text.name, **{key: getattr(plan.calib, key) for key in ("nsamples", "seqlen", "seed")}},
        places=plan.places(empty_modules(source.path, source.settings.trust_remote_code)),
    )
    with resources.measured() as use:
        seconds, calibration = _quantize(plan, job)
        with working("verifying the weights"):
            proof = _prove(plan, job, calibration)
    resources.return_freed()  # The hidden states of the text would stay beside what is scored next.
    costs = asdict(use) | {"seconds": seconds}
    proof = proof.model_copy(update=costs | {"bytes_on_disk": _bytes_on_disk(plan, directory)})
    tokens = windows.numel() + held_out.numel()
    operations = work.quantizing_work(parameters_of(job.model), width_of(job.model), tokens)
    cost = work.EntryCost(
        plan.quant.name, time.monotonic() - begun, operations, peak_gpu_memory_bytes=use.peak_gpu_memory_bytes
    )
    work.write_cost(directory, cost)
    write(directory / PROOF, proof)


def _quantize(plan: Plan, job: QuantizationJob) -> tuple[float, ExpertCalibration | None]:
    """Write the checkpoint; return how many seconds that took, and how the tokens of a mixture's experts were counted."""
    with resources.measured() as use, progress("quantizing", total=None) as job.advance:
        calibration = _calibration_of_experts(plan, job)
        plan.quant.quantize(job)
        if not plan.quant.reads_checkpoint and not any(job.directory.iterdir()):
            raise UserError(
                f"quant={plan.quant.name}: quantize wrote no layer; call job.write with every layer of job.layers()."
            )
    if plan.quant.changes_model:
        job.forget_model()
    return use.seconds, calibration


def _gguf_file(plan: Plan, directory: Path) -> Path | None:
    """Return the GGUF file that the weights were read from, or written to beside the checkpoint; None where there is none."""
    if plan.checkpoint and is_gguf(plan.checkpoint.path):
        return plan.checkpoint.path
    return next(directory.glob("*.gguf"), None)


def _bytes_on_disk(plan: Plan, directory: Path) -> int:
    """Return the bytes of the quantized model's weight files: of the GGUF file where there is one."""
    if file := _gguf_file(plan, directory):
        return file.stat().st_size
    return sum(file.stat().st_size for file in _checkpoint(plan, directory).rglob("*.safetensors"))


def _calibration_of_experts(plan: Plan, job: QuantizationJob) -> ExpertCalibration | None:
    """Count the calibration tokens of a mixture's experts; None without experts or calibration text."""
    from bitsure.quantize.proof.expert_calibration import expert_calibration
    from bitsure.quantize.walk.mixtures import expert_lists

    modules = empty_modules(plan.source.path, plan.source.settings.trust_remote_code)
    if not plan.quant.needs_data or not expert_lists(modules):
        return None
    calibration = expert_calibration(job.model, job.windows, job.all_experts)
    if not plan.quant.changes_model:
        job.forget_model()  # It would lie in memory beside the one that a library loads.
    return calibration


def _prove(plan: Plan, job: QuantizationJob, calibration: ExpertCalibration | None) -> Quantization:
    """quantization.json but for its costs, by what is read back from disk."""
    from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint
    from bitsure.quantize.proof.weight_changes import prove

    quantizer = plan.quant
    experts = _experts(plan, job, calibration)
    checkpoint = load_checkpoint(_checkpoint(plan, job.directory), job.model)
    original_bits = stored_bits(plan.source.path, parameters_of(job.model))
    whole_model = quantizer.quantizes_whole_model
    proof = prove(job.model, checkpoint, job.held_out, whole_model=whole_model, stored_bits=original_bits)
    quantizer.check_proof(proof, plan.checkpoint, plan.source.name)
    text = CalibrationText(name=plan.text.name, windows=len(job.windows), seqlen=job.held_out.shape[1])
    not_applied = quantizer.not_applied(plan.checkpoint)
    about: dict[str, Any] = {"quantizer": quantizer.name, "not_applied": not_applied, "calib_data": text}
    if file := _gguf_file(plan, job.directory):
        gguf = read_gguf(file)
        about |= {"tensor_types": summarize_types(gguf), "not_used": unused_parts(gguf, job.model, plan.source.name)}
    if experts:
        about["experts"] = experts
    return proof.model_copy(update=about)


def _experts(plan: Plan, job: QuantizationJob, calibration: ExpertCalibration | None) -> Experts | None:
    """Return what is known of a mixture's experts, None of other models; the model that was run is forgotten."""
    from bitsure.quantize.checkpoint.apply_checkpoint import put_into
    from bitsure.quantize.proof.routing import route, routing_change
    from bitsure.quantize.walk.mixtures import expert_lists

    lists = expert_lists(job.model).values()
    if not lists:
        return None
    facts: dict[str, Any] = {"number": sum(map(len, lists))}
    if calibration:
        facts["calibration"] = calibration
    full = route(job.model, job.held_out)
    if full.decisions:
        put_into(job.model, _checkpoint(plan, job.directory))
        quantized, same_experts = (route(job.model, job.held_out, given) for given in (None, full))
        facts["routing"] = routing_change(full, quantized, same_experts)
        job.forget_model()
    return Experts(**facts)
