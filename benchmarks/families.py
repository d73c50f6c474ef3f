"""Which quantizer works on which family: `make families` quantizes small random models and writes docs/families.md."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.regions import fill
from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config import schema
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.schema import ModelSettings
from bitsure.config.validation import to_dataclasses
from bitsure.models.locate import locate_model
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.check import check_plan
from bitsure.quantize.libraries.llama_cpp_mixture import DEFAULTS
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.plan import Plan
from bitsure.quantize.quantizer import Quantizer, as_quantizer
from tests.builders.families import FALCON, FAMILIES, GROUPED, build
from tests.builders.tokenizers import TEXT, byte_tokenizer

PAGE = PROJECT / "docs" / "families.md"
ROWS = PROJECT / "outputs" / "families.jsonl"
SIZES = FAMILIES | {
    "falcon, ALiBi": FALCON | {"alibi": True},
    "gemma2": GROUPED | {"head_dim": 16},
    "llama, widths 64 and 172": GROUPED | {"intermediate_size": 172},
}
SKIPPED = (
    # They have no bits, or make nothing.
    *("rtn", "gptq", "awq", "hqq", "bnb", "none", "prequantized", "keep", "mx", "mixed", "served"),
    *("autoround", "autoround2", "autoround3", "autoround4", "autoround8"),  # of an extra
)
GGUF = ("llamacpp", *DEFAULTS)  # docs/gguf.md says of which families files are written


def presets() -> dict[str, Quantizer]:
    """Every quantizer of conf/quant that makes something, one for each number of bits, and our own GPTQ."""
    schema.register()
    options = sorted(path.stem for path in (CONF / "quant").glob("*.yaml") if path.stem not in (*SKIPPED, *GGUF))
    chosen = {option: [f"quant={option}"] for option in options}
    for bits in (2, 3, 4, 8):
        chosen[f"gptq{bits}, native"] = [f"quant=gptq{bits}", "quant.backend=native"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = {name: to_dataclasses(compose("config", overrides=given)).quant for name, given in chosen.items()}
    return {name: as_quantizer(quant) for name, quant in sorted(settings.items()) if not quant.is_full_precision}


def write_model(family: str, path: Path) -> None:
    build(family.split(",")[0], **SIZES[family]).half().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)


def attempt(path: Path, quant: Quantizer, text: Path, folder: Path) -> str:
    """Bits per weight and the mean output error, or the reason of the refusal."""
    calib = CalibSettings(name="text", path=str(text), nsamples=8, seqlen=64)
    plan = Plan(locate_model(ModelSettings(path=str(path)), None), quant, calib, locate_text(calib, None), "float32")
    try:
        store = Store(folder / "store")
        check_plan(plan, store)
        report = ensure_quantized(plan, store, folder / "log").proof
    except UserError as error:
        return "refused: " + str(error).removeprefix(f"quant={quant.name}: ")
    errors = [layer.output_error for layer in report.layers.values()]
    sentence = f"{report.bits_per_weight:.2f} bits, {sum(errors) / len(errors):.4f}"
    if report.keys_and_values:
        errors = report.keys_and_values.errors.values()
        sentence += f", K and V {sum(errors) / len(errors):.4f}"
    return sentence


def study(rows: Path, chosen: dict[str, Quantizer]) -> None:
    """Try quantizers on every family, but for those that the file of rows has, and write each result there as it comes."""
    known = read_rows(rows)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "calib.txt"
        text.write_text("\n\n".join(f"{i} {TEXT}" for i in range(400)), encoding="utf-8")
        for family in SIZES:
            path = Path(folder) / family.replace(", ", "-").replace(" ", "-")
            write_model(family, path)
            for name in [name for name in chosen if name not in known.get(family, {})]:
                row = {"family": family, "quantizer": name, "result": attempt(path, chosen[name], text, Path(folder))}
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(*row.values(), sep=" | ", flush=True)


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """Return family → quantizer → result."""
    results: dict[str, dict[str, str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        row = json.loads(line)
        results.setdefault(row["family"], {})[row["quantizer"]] = row["result"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quantizers", help="only those that begin so; the page stays as it is")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file of results; a stopped command goes on there")
    given = parser.parse_args()
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    chosen = {name: quant for name, quant in presets().items() if name.startswith(given.quantizers or "")}
    study(given.rows, chosen)
    lines = table(read_rows(given.rows), list(chosen))
    print("\n".join(lines))
    if not given.quantizers:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"families": lines}), encoding="utf-8")
        given.rows.unlink()  # so that the next command tries all of them again


def table(by_family: dict[str, dict[str, str]], quantizers: list[str]) -> list[str]:
    """Return a row a quantizer with a column a family, then the reasons of refusals."""
    reasons: dict[str, int] = {}
    lines = [
        "| | " + " | ".join(by_family) + " |",
        "|---|" + "---|" * len(by_family),
    ]
    for name in quantizers:
        cells = []
        for results in by_family.values():
            result = results[name]
            if result.startswith("refused: "):
                reason = result.removeprefix("refused: ").replace("\n", " ")
                result = f"refused ({reasons.setdefault(reason, len(reasons) + 1)})"
            cells.append(result)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {reason}" for reason, number in reasons.items())]
    return lines


if __name__ == "__main__":
    main()
