"""Draw how well an answer is found in a long text, by the text's length and the answer's depth."""

from __future__ import annotations

from collections.abc import Mapping

from bitsure.base.plain_text import without_controls
from bitsure.metrics.retrieval_metrics import PLACED, Place
from bitsure.report.chart_layers import category_axis, heat_layers, points
from bitsure.report.charts import INK, Chart, Series, Spec, table, titled
from bitsure.report.metric_labels import metric_label
from bitsure.report.retrieval_section import RetrievalSection, numbers_by_place, where
from bitsure.report.tables import interval, number
from bitsure.results import Measurement

FIELD = (40, 20)  # pixels
TITLE = 190  # pixels that a title may take, where fields are few


def retrieval_chart(section: RetrievalSection, models: Mapping[str, Mapping[str, Measurement]]) -> Chart:
    """Return a heat map for each metric of PLACED, and beside it that of the other model.

    Args:
        section: What is said of the task.
        models: Model → metric → its number on the task.
    """
    panels = [
        {
            "hconcat": [
                place_panel(
                    f"{metric_label(metric)}, {name}",
                    {
                        place: (of_place.value, f"{number(of_place.value)} {interval(of_place)}, {of_place.n:,} questions")
                        for place, of_place in numbers_by_place(values, metric).items()
                    },
                )
                for name, values in models.items()
            ]
        }
        for metric in PLACED
    ]
    series = [line for name, values in models.items() for line in _lines(name, values)]
    return Chart(titled(section.task, {"vconcat": panels}), section.sentence, series, "depth, percent")


def _lines(name: str, values: Mapping[str, Measurement]) -> list[Series]:
    """Return a model's accuracy against depth, a line a length."""
    accuracy, lines = numbers_by_place(values, "accuracy"), []
    for length in sorted({place.length for place in accuracy}):
        here = {place: of_place for place, of_place in accuracy.items() if place.length == length}
        columns: dict[str, list[float | None]] = {
            "x": [place.depth for place in here],
            "y": [of_place.value for of_place in here.values()],
            "low": [of_place.ci_low for of_place in here.values()],
            "high": [of_place.ci_high for of_place in here.values()],
        }
        lines.append(Series(f"{name}, {length} words", points(columns, list(map(where, here))), INK))
    return lines


def place_panel(title: str, numbers: Mapping[Place, tuple[float | None, str]]) -> Spec:
    """Return a heat map, lengths across and depths down.

    Args:
        title: Its title.
        numbers: Place → a number in [0, 1], and what hovering over it shows besides the place.
    """
    lengths, depths = (sorted({getattr(place, axis) for place in numbers}) for axis in ("length", "depth"))
    rows = table(
        {
            "length": [str(place.length) for place in numbers],
            "depth": [f"{place.depth}%" for place in numbers],
            "value": [value for value, _ in numbers.values()],
            "text": ["" if value is None else f"{value:.2f}" for value, _ in numbers.values()],
            "hover": [f"{where(place)}: {text}" for place, (_, text) in numbers.items()],
        }
    )
    x = category_axis("length", map(str, lengths), "length, words")
    y = category_axis("depth", [f"{depth}%" for depth in depths], "depth")
    return {
        "title": {"text": without_controls(title), "fontSize": 11, "limit": max(TITLE, FIELD[0] * len(lengths) + 60)},
        "data": {"values": rows},
        "width": {"step": FIELD[0]},
        "height": {"step": FIELD[1]},
        "layer": heat_layers(x, y, {"scheme": "purples", "domain": [0, 1]}),
    }
