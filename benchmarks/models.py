"""The models of conf/model as a table: `make models` writes docs/models.md."""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import OmegaConf

from bitsure.config.paths import CONF, PROJECT

OUT = PROJECT / "docs" / "models.md"
HEAD = """# Models of the hub

`model=NAME` takes one of these, made by `make models` from `conf/model`; `model=hub model.repo=org/name` takes any other,
`model=local model.path=DIR` a directory, and `model=gguf model.path=FILE.gguf` a file of llama.cpp ([gguf.md](gguf.md)). All
are at `model.revision=main` unless said otherwise; `provenance.json` and the store's keys have the commit.

- *published in*: the type of the weights in the repository, which `model.dtype=auto` computes in on a GPU.
- *access*: "ask" is a gated repository. Ask on its page on the hub, then log in: `hf auth login`, or the variable `HF_TOKEN`.
  The hub may have changed its mind since; what it answers counts.
- *context*: as published, in tokens. What the repository's `config.json` says is what counts; a warning says where they differ.
- *refused*: (1) and so on, below the table, say what. Code of a repository is run only with `model.trust_remote_code=true`;
  a model that cannot be quantized is scored with `quant=none`.

Before weights are downloaded, a family that is not the repository's, code that it would need, more parameters than the machine
has memory for, and a disk without room are errors.

## Where files come from

A model, a calibration text and the tasks' data sets are looked for in `paths.hub_mirror=DIR` (`DIR/models/<org>/<name>`,
`DIR/datasets/<org>/<name>`), then in the hub's cache, then on the hub. A branch in the cache or the mirror stays at the commit
that it had when it was fetched. On a machine with a network

    make prefetch model=opt-125m,opt-1.3b task=paper paths.hub_mirror=DIR

puts what runs with these settings read into `DIR`, each model whole or not at all; the same command goes on where it broke.
`main.py` with `paths.hub_mirror=DIR` and the same settings then needs no network (`HF_HUB_OFFLINE=1`). What was fetched
is identified by its commit, as the hub's cache is, and `model.revision` must be that commit or the name it was fetched by. A
model that was put there by hand, or changed, is identified by its content; of which revision it is nobody can check:
`revision_checked` in `provenance.json` says so, and a warning where a revision was asked for. `data` there has each task's
data sets with commit and SHA-256, `calib_data` the calibration text's; `data_full_precision` is there where the
full-precision records, made at another time, are of other data.

Weights are read from safetensors; where a repository has none, as the OPT family, its .bin files are read by torch's
weights-only loader, which runs no code, and the log says so.

## Where it is scored

`model.device` is the fastest there is, or `cpu`, `cuda:1`. `model.device_map=auto` spreads a model that is too large for one
GPU over all GPUs, memory and disk, within `'model.max_memory=[0:20GiB,cpu:60GiB]'`; the numbers are the same, `TMPDIR` is where
weights that are no safetensors lie meanwhile. Quantizing wants the model in main memory, one block at a time on the GPU.

## The list
"""


def table() -> str:
    """The document, from the files in conf/model."""
    found = [OmegaConf.load(path).model for path in sorted((CONF / "model").glob("*.yaml"))]
    chosen = [model for model in found if not OmegaConf.is_missing(model, "repo") and model.get("repo")]
    lines = ["| model | repository | family | parameters (billion) | context | published in | access | refused |"]
    lines.append("|---|---|---|--:|--:|---|---|---|")
    notes: dict[str, int] = {}
    for model in sorted(chosen, key=lambda model: (re.match("[a-z]+", model.name)[0], model.parameters, model.name)):
        why = "remote code, unless asked for" if model.get("remote_code") else model.get("unquantizable")
        note = f"({notes.setdefault(why, len(notes) + 1)})" if why else ""
        context = f"{model.context:,}" if "context" in model else "–"
        cells = [f"`{model.name}`", model.repo, model.family, f"{model.parameters / 1e9:.3f}", context, model.full_dtype]
        lines.append(f"| {' | '.join(cells)} | {'ask' if model.get('gated') else 'open'} | {note} |")
    return "\n".join([HEAD, *lines, "", *(f"{number}. {why}" for why, number in notes.items())]) + "\n"


def main(out: Path = OUT) -> None:
    out.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
