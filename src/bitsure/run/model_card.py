"""The model card of an exported model: README.md with its numbers, how they were measured, and what it was made from."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from bitsure.base.plain_text import without_controls
from bitsure.comparison.verdict_words import verdict_details
from bitsure.config.derived_tasks import is_repetition
from bitsure.config.report_settings import read_report_settings
from bitsure.metrics.metric_names import MACRO
from bitsure.report import rounded, tables
from bitsure.report.report_contents import run_title
from bitsure.results import Comparison, Labels, Provenance, Quantization, Verdict, read_if_there

# What loads a layout, besides torch and transformers.
PACKAGES = {"gptq": "gptqmodel optimum", "compressed-tensors": "compressed-tensors"}
# What makes markup of text: code, HTML, quotes, headings, cells of tables, fences, and the address of a link.
MARKUP = re.compile(r"[\\`<>#|~]|(?<=\])\(")
PROTOCOL = {  # keys of `Provenance.asked` → what the card calls them
    "num_fewshot": "few-shot examples",
    "limit": "task.limit",
    "seed": "seed of few-shot examples",
    "chat_template": "chat template",
    "system_instruction": "system instruction",
    "add_bos": "BOS before the text",
}
LLAMA_CPP = """\
With llama.cpp:

```sh
llama-cli -m {file}
```
"""
LOADING = """\
With transformers (`pip install {packages}`):

```python
from transformers import {classes}
model = AutoModelForCausalLM.from_pretrained({place}, dtype="auto"{settings})
tokenizer = AutoTokenizer.from_pretrained({place})
```
"""
VLLM = """
With vLLM:

```python
from vllm import LLM
model = LLM({place})
print(model.generate("The sea is")[0].outputs[0].text)
```
"""
NOT_VLLM = """
vLLM 0.32 reads `gptq` in 4 and 8 bits, symmetric, which these weights are not. Export them for it with
`--format compressed-tensors`.
"""
OWN_BITS = """\
With GPTQModel (`pip install gptqmodel`); layers have bits of their own, which transformers with optimum does not read:

```python
from gptqmodel import GPTQModel
model = GPTQModel.load({place})
```
"""


def model_card(run_dir: Path, place: str, settings: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """Return the text of README.md, which begins with the block of metadata that the hub reads.

    Args:
        run_dir: The run that was exported.
        place: What the exported directory is called.
        settings: The export's `quantization_config`.
        hashes: File of the export → its SHA-256.

    Raises:
        UserError: If a file of the run cannot be read.
    """
    provenance = read_if_there(run_dir / "provenance.json", Provenance)
    quantization = read_if_there(run_dir / "quantization.json", Quantization)
    comparison = read_if_there(run_dir / "comparison.json", Comparison) or {}
    verdict = read_if_there(run_dir / "verdict.json", Verdict)
    assert provenance is not None and provenance.model is not None and quantization is not None, "checked before exporting"
    called = provenance.labels or Labels(model=provenance.model.name, quantizer=str(quantization.quantizer))
    metadata = _metadata(provenance, quantization, comparison, settings["quant_method"])
    metric, _ = read_report_settings(run_dir / "config.yaml")
    sections = {
        "What was rounded": [_plain(rounded.summary(quantization, provenance.model))],
        "May it be shipped?": _verdict(verdict) if verdict else [],
        "Against full precision": _differences(comparison, metric.confidence_level, verdict),
        "How it was measured": [_list(_protocol(provenance, metric.normalization))],
        "Loading": [_loading(settings, place)],
        "Made from": [_list(_origins(provenance, quantization)), _table(("file", "SHA-256"), list(hashes.items()))],
    }
    text = "\n\n".join(
        paragraph for title, paragraphs in sections.items() if paragraphs for paragraph in (f"## {title}", *paragraphs)
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n# {_plain(run_title(called, quantization.quantizer))}\n\n{text}\n"


def next_step(layout: str, out: Path) -> str:
    """Return what to do with an export, in a line for the terminal."""
    if layout == "gguf":
        return f"llama-cli -m {shlex.quote(str(out / 'model.gguf'))}"
    return f"pip install {PACKAGES[layout]}; {out / 'README.md'} has the lines that load it"


def _verdict(verdict: Verdict) -> list[str]:
    """Return the verdict over the tasks, and its details, a list under each heading."""
    paragraphs = [f"**{verdict.badge.capitalize()}.** {_plain(f'{verdict.sentence} {verdict.settles}'.strip())}"]
    for heading, details in verdict_details(verdict).items():
        paragraphs += [_plain(heading), "\n".join(f"- {_plain(detail)}" for detail in details)]
    return paragraphs


def _differences(comparison: Comparison, level: float, verdict: Verdict | None) -> list[str]:
    """Return a table of the headline differences, and what they are."""
    rows = [row[: tables.UP_TO_INTERVAL] for row in tables.comparison_rows(comparison, tables.HEADLINE)]
    note = f"Differences are quantized − full precision on the same n questions, with {level:.0%} intervals over questions."
    excluded = [task for task in verdict.excluded if not is_repetition(task, comparison)] if verdict else []
    if excluded and MACRO in comparison:
        note += f" {MACRO} is over all tasks; the verdict leaves out {_plain(', '.join(excluded))}."
    return [_table(tables.comparison_columns(level)[: tables.UP_TO_INTERVAL], rows), note]


def _loading(settings: Mapping[str, Any], place: str) -> str:
    """Return the lines that load an export."""
    if settings["quant_method"] == "gguf":
        return LLAMA_CPP.format(file=shlex.quote(_one_line(f"{place}/model.gguf")))
    if any(pattern.startswith("+:") for pattern in settings.get("dynamic") or {}):
        return OWN_BITS.format(place=repr(place))
    layout, classes, more = settings["quant_method"], "AutoModelForCausalLM, AutoTokenizer", ""
    if not all(group["weights"]["symmetric"] for group in settings.get("config_groups", {}).values()):
        # transformers 5.23 has no room for packed zero points unless it unpacks the weights.
        classes += ", CompressedTensorsConfig"
        more = ", quantization_config=CompressedTensorsConfig(dequantize=True)"
    vllm = NOT_VLLM if layout == "gptq" and (settings["bits"] not in (4, 8) or not settings["sym"]) else VLLM
    return (LOADING + vllm).format(packages=PACKAGES[layout], place=repr(place), classes=classes, settings=more)


def _metadata(provenance: Provenance, quantization: Quantization, comparison: Comparison, layout: str) -> ModelCardData:
    assert provenance.model is not None
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=next((repo for repo in (provenance.data or {}).get(task, {}) if repo != "files"), _one_line(task)),
            dataset_name=_one_line(task),
            metric_type=metric,
            metric_value=values[metric].quantized,
        )
        for task, values in comparison.items()
        for metric in tables.HEADLINE
        if task != MACRO and metric in values and values[metric].quantized is not None
    ]
    repo = provenance.model.repo
    metadata = ModelCardData(
        base_model=repo,
        library_name=None if layout == "gguf" else "transformers",
        pipeline_tag="text-generation",
        tags=["bitsure", layout, str(quantization.quantizer)],
        model_name=_one_line(f"{provenance.model.name}-{quantization.quantizer}"),
        eval_results=results or None,
    )
    if repo:
        metadata["base_model_relation"] = "quantized"
    return metadata


def _protocol(provenance: Provenance, normalization: str) -> Iterator[tuple[str, object]]:
    """Yield how the questions were asked, and by which versions."""
    asked = provenance.asked or {}
    for key, label in PROTOCOL.items():
        if asked.get(key) is not None:
            yield label, asked[key]
    yield "choices' log-probabilities divided by", normalization
    for task, count in (provenance.questions or {}).items():
        yield task, f"{count.asked:,} of {count.available:,} questions"
    assert provenance.model is not None
    yield "computed in", provenance.model.dtype
    for package in ("lm_eval", "transformers", "torch", "bitsure"):
        if installed := provenance.packages.get(package):
            yield package, installed


def _origins(provenance: Provenance, quantization: Quantization) -> Iterator[tuple[str, object]]:
    """Yield the full-precision model, its hashes, and the calibration text."""
    model = provenance.model
    assert model is not None
    yield "full-precision model", f"{model.repo or model.name}, revision {model.revision or 'unknown'}"
    yield "its fingerprint", model.fingerprint
    for file, sha256 in (model.files or {}).items():
        yield Path(file).name, sha256
    if (text := quantization.calib_data) and text.windows:
        yield "calibration text", f"{text.name}, {text.windows} windows of {text.seqlen} tokens"
    yield "quantizer", json.dumps((provenance.weights or {}).get("quant"), ensure_ascii=False)


def _list(facts: Iterator[tuple[str, object]]) -> str:
    return "\n".join(f"- {_plain(label)}: {_plain(str(value))}" for label, value in facts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """Return text from anywhere as Markdown that shows it as it is, on one line."""
    return MARKUP.sub(r"\\\g<0>", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(without_controls(text).split())
