"""One quantized model's text less another's: the difference of the logarithms of their perplexities, on the same tokens."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from benchmarks.contrast import MeanContrast
from bitsure.base.errors import UserError
from bitsure.metrics.bootstrap import t_interval
from bitsure.sweep.report.cell_results import CellResult

LEVEL = 0.95
TOKENS = ["task", "document", "position", "window", "token"]


def ln_perplexity(first: CellResult, second: CellResult) -> MeanContrast:
    """Return ln perplexity of the first less that of the second, with a t interval over documents.

    Raises UserError if the two scored other tokens.
    """
    value, error, n, _ = token_mean("logprob", second, first)
    return MeanContrast(value, *t_interval(value, error, n - 1, LEVEL))


def token_mean(column: str, first: CellResult, second: CellResult | None = None) -> tuple[float, float, int, str]:
    """Return the mean over tokens of a column of texts.parquet, less the second's; its error; how many units, and which.

    It is a ratio of sums over documents, whose error is linearized (Cochran 1977, section 6.4). A text of one document is
    taken by windows, as if these were independent. Raises UserError if the two scored other tokens.
    """
    cells = [first] if second is None else [first, second]
    tables = [pq.read_table(cell.directory / "texts.parquet", columns=[*TOKENS, column]).to_pandas() for cell in cells]
    if not tables[0][TOKENS].equals(tables[-1][TOKENS]):
        raise UserError(f"{' and '.join(str(cell.directory) for cell in cells)} scored other tokens.")
    unit = "document" if tables[0]["document"].nunique() > 1 else "window"
    table = tables[0] if second is None else tables[0].assign(**{column: tables[0][column] - tables[1][column]})
    sums = table.groupby(["task", unit])[column].agg(["sum", "count"])
    value, n = sums["sum"].sum() / sums["count"].sum(), len(sums)
    error = np.std(sums["sum"] - value * sums["count"], ddof=1) / sums["count"].mean() / n**0.5
    return value, error, n, unit
