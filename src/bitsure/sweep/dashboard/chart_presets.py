"""The page's charts as presets of W&B's custom charts: the same layers, over the tables that runs log."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from bitsure.base.files import hash_json
from bitsure.report.chart_layers import DASHES, SHAPES, line_marks, number_axis
from bitsure.report.charts import CONFIG, SCHEMA, Spec
from bitsure.report.forest import ROW_HEIGHT, forest_layers
from bitsure.run.tracked_charts import FOREST, LINES, ChartPreset

log = logging.getLogger(__name__)
RUN, COLOUR = "name", "color"  # columns that W&B adds to a table: its run, and the run's colour
HEADING = "heading"  # a row's task and run


def page_charts() -> dict[str, tuple[ChartPreset, Spec]]:
    """Return title → what W&B draws by itself, and the page's chart of the same table, with W&B's placeholders."""
    return {"bitsure lines": (LINES, _lines()), "bitsure forest": (FOREST, _forest())}


def _lines() -> Spec:
    """Return lines with intervals: runs differ by colours, lines of a run by dashes and shapes."""
    by_run = {"field": RUN, "type": "nominal", "scale": {"range": {"field": COLOUR}}}
    dash: Spec = {"field": "line", "type": "nominal", "scale": {"range": DASHES}}
    shape: Spec = {"field": "line", "type": "nominal", "scale": {"range": SHAPES}, "legend": None}
    return _preset(LINES.columns, line_marks(number_axis("${string:xname}"), number_axis(None), by_run, dash, shape))


def _forest() -> Spec:
    """Return a forest plot with a row a task and run."""
    heading = {"calculate": f"datum['${{field:task}}'] + ', ' + datum['{RUN}']", "as": HEADING}
    return _preset(FOREST.columns, forest_layers(HEADING, (-1, 1))) | {"transform": [heading], "height": {"step": ROW_HEIGHT}}


def _preset(columns: Sequence[str], layers: Sequence[Spec]) -> Spec:
    """Return layers as a chart of the table that W&B puts in; so it does with columns and texts in `${…}`."""
    text = json.dumps({"layer": layers})
    for column in columns:
        text = text.replace(f'"field": "{column}"', f'"field": "${{field:{column}}}"')
    frame = {"$schema": SCHEMA, "data": {"name": "wandb"}, "title": "${string:title}", "width": "container"}
    spec: Spec = json.loads(text)
    return frame | spec | {"config": CONFIG}


def register(api: Any, entity: str) -> dict[str, str]:
    """Make the presets in W&B, where they are not there yet.

    Args:
        api: W&B's `Api`.
        entity: The user or team whose presets they are.

    Returns:
        Built-in preset → the id of the one that takes its place. None of those that W&B refuses: an old server knows no presets
        of one's own, and the built-in ones draw the same tables.
    """
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    ids = {}
    for title, (builtin, spec) in page_charts().items():
        name = f"{title.replace(' ', '-')}-{hash_json(spec)[:8]}"
        try:
            ids[builtin.name] = api.create_custom_chart(
                entity=entity, name=name, display_name=title, spec_type="vega2", access="private", spec=spec
            )
        except (wandb.Error, WandbApiFailedError) as error:
            if "exist" in str(error).lower():  # made by an earlier call
                ids[builtin.name] = f"{entity}/{name}"
            else:
                log.warning("W&B does not take the chart %s, and draws %s instead: %s", name, builtin.name, error)
    return ids
