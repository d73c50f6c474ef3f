"""Old names of the classes and functions in the modules beside this one, until every caller uses the new ones."""

from bitsure.quantize.weights import CodebookWeight, DenseWeight, ElementWeight, IntegerWeight, Weight
from bitsure.quantize.weights.grid import fit_grid, group_index, to_units
from bitsure.quantize.weights.grid import weight_from_units as weight_of

__all__ = [
    "CodebookWeight",
    "DenseWeight",
    "ElementWeight",
    "IntegerWeight",
    "Weight",
    "fit_grid",
    "group_index",
    "to_units",
    "weight_of",
]
