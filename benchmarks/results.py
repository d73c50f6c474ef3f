"""docs/results.md: every file of a run directory, field by field, from the classes in bitsure.results. `make docs-results`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path

from benchmarks import metric_page
from bitsure import results
from bitsure.results.result import Result

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
FILES: dict[str, tuple[str, typing.Any]] = {
    "metrics.json": ("The run's own numbers. `baseline_metrics.json` has those of full precision.", results.MetricsByTask),
    "comparison.json": ("Quantized − full precision on the same questions; absent in full precision.", results.Comparison),
    "verdict.json": ("May the model be shipped? Absent in full precision.", results.Verdict),
    "quantization.json": (
        "The proof of what the quantizer changed; absent in full precision, and where a server runs the quantized model.",
        results.Quantization,
    ),
    "compressibility.json": ("How far codes compress; absent where there are none.", results.Compressibility),
    "attribution.json": ("Where the loss comes from; only with `attribution.measure=true`.", results.Attribution),
    "costs.json": ("Time and memory.", results.Costs),
    "provenance.json": ("Where the numbers come from.", results.Provenance),
    "status.json": ("How far the run came.", results.Status),
    "plan.json": ("The cells of a sweep, in the sweep's directory.", results.SweepPlan),
}
HEAD = """# Files of a run directory

A field that is absent does not apply; a field that is `null` applies, and its value does not exist or is not known.
`bitsure.load(RUN_DIR)` reads all files as typed objects and refuses one that does not fit, naming the field.
`make docs-results` writes this page from the classes in `src/bitsure/results/`. [Metrics](metrics.md) lists the metrics of
`metrics.json` and `comparison.json`.

`records.parquet` and the other tables have their columns described in `src/bitsure/records/`;
[Written answers](generation.md) has those of `generations.parquet`.
"""


def page() -> str:
    """Return the text of docs/results.md."""
    parts = [HEAD]
    for name, (purpose, kind) in FILES.items():
        parts.append(f"## {name}\n\n{purpose}\n")
        shape = _shape(kind)
        if not (isinstance(kind, type) and issubclass(kind, Result)):
            parts.append(f"The file maps each task to an object that maps each metric to a {shape.rpartition(' ')[2]}.\n")
        parts += [_table(part) for part in _parts(kind, set())]
    return "\n".join(parts)


def _table(kind: type[Result]) -> str:
    rows = ["| field | type | meaning |", "|---|---|---|"]
    for name, field in kind.model_fields.items():
        absent = "" if field.is_required() else ", may be absent"
        shape = _shape(typing.get_type_hints(kind)[name]).replace("|", "\\|")
        rows.append(f"| `{name}` | {shape}{absent} | {' '.join((field.description or '').split())} |")
    summary = (kind.__doc__ or "").strip().splitlines()[0]
    return f"### {kind.__name__}\n\n{summary}\n\n" + "\n".join(rows) + "\n"


def _parts(kind: typing.Any, seen: set[type[Result]]) -> Iterator[type[Result]]:
    """Yield every `Result` class that a type is made of, the outer ones first."""
    if isinstance(kind, type) and issubclass(kind, Result):
        if kind in seen:
            return
        seen.add(kind)
        yield kind
        for hint in typing.get_type_hints(kind).values():
            yield from _parts(hint, seen)
        return
    for argument in typing.get_args(kind):
        yield from _parts(argument, seen)


def _shape(kind: typing.Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if kind is type(None) else _shape(kind) for kind in arguments)
    if origin is dict:
        return f"object of {_shape(arguments[1])}"
    if origin is list:
        return f"list of {_shape(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_shape, arguments))}]"
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    names = {str: "text", int: "integer", float: "number", bool: "true or false", typing.Any: "anything"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


if __name__ == "__main__":
    for file, text in ((PAGE, page()), (metric_page.PAGE, metric_page.page())):
        file.write_text(text, encoding="utf-8")
        print(file)
