"""The models of conf/model as a table: `make models` writes docs/models.md."""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import OmegaConf

from benchmarks.regions import fill
from bitsure.config.paths import CONF, PROJECT

OUT = PROJECT / "docs" / "models.md"


def table() -> str:
    """Return the page with its table made from the files in conf/model."""
    models = [OmegaConf.load(path).model for path in sorted((CONF / "model").glob("*.yaml"))]
    chosen = [model for model in models if not OmegaConf.is_missing(model, "repo") and model.get("repo")]
    lines = ["| model | repository | family | parameters (billion) | context | published in | access | refused |"]
    lines.append("|---|---|---|--:|--:|---|---|---|")
    notes: dict[str, int] = {}
    for model in sorted(chosen, key=lambda model: (re.match("[a-z]+", model.name)[0], model.parameters, model.name)):
        why = "remote code, unless asked for" if model.get("remote_code") else model.get("unquantizable")
        note = f"({notes.setdefault(why, len(notes) + 1)})" if why else ""
        context = f"{model.context:,}" if "context" in model else "–"
        cells = [f"`{model.name}`", model.repo, model.family, f"{model.parameters / 1e9:.3f}", context, model.full_dtype]
        lines.append(f"| {' | '.join(cells)} | {'ask' if model.get('gated') else 'open'} | {note} |")
    lines += ["", *(f"{number}. {why}" for why, number in notes.items())]
    return fill(OUT.read_text(encoding="utf-8"), {"models": lines})


def main(out: Path = OUT) -> None:
    out.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
