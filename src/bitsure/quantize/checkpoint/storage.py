"""Old names of the functions in the modules beside this one, until every caller uses the new ones."""

from collections.abc import Mapping
from pathlib import Path

import torch

from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.read_checkpoint import iterate_weights as one_by_one
from bitsure.quantize.checkpoint.read_checkpoint import load_checkpoint, own_names
from bitsure.quantize.checkpoint.read_checkpoint import read_checkpoint as read
from bitsure.quantize.checkpoint.write_checkpoint import merge_parts as merge
from bitsure.quantize.checkpoint.write_checkpoint import write_checkpoint as write
from bitsure.quantize.checkpoint.write_checkpoint import write_part
from bitsure.quantize.weights import Weight

__all__ = ["load", "merge", "one_by_one", "own_names", "put_into", "read", "write", "write_part"]


def load(directory: Path, model: torch.nn.Module) -> tuple[Mapping[str, Weight], Mapping[str, torch.Tensor]]:
    """Old form of `load_checkpoint`."""
    contents = load_checkpoint(directory, model)
    return contents.weights, contents.others
