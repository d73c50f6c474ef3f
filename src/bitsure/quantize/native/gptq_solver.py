"""GPTQ in plain torch (Frantar et al. 2023): round column by column; later columns compensate the error of earlier ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitsure.base.errors import UserError
from bitsure.config.gptq_settings import GptqSettings
from bitsure.config.number_formats import BLOCKS
from bitsure.quantize.weights import ElementWeight, IntegerWeight
from bitsure.quantize.weights.grid import fit_grid, group_index, to_units, weight_from_units, whole_scale

log = logging.getLogger(__name__)

COLUMNS = 128  # Rounded before their error is compensated in all later columns at once: algorithm 1's B.
FEW = 32  # Of these, rounded before their error is compensated in the rest of the 128; a block of an MX format or two of NVFP4.
TILE = 256  # Rows and columns of a Hessian that are factored at once.


def round_with_hessian(
    weight: torch.Tensor, hessian: torch.Tensor, quant: GptqSettings, shrink: tuple[torch.Tensor, ...], names: str
) -> IntegerWeight | ElementWeight:
    """Round W so that ‖(Ŵ − W)X‖ is small: algorithm 1, in the paper's symbols.

    A group's scales follow from its weights at the time when the block of columns in which it begins is reached, as in the
    paper's own code; for a block of an MX format or of NVFP4, when the group itself is reached. With desc_act the columns are
    rounded in the order of their squared input, largest first, and groups are of columns that follow each other in that order.

    Args:
        weight: W, shape (out, in).
        hessian: H = XXᵀ up to a factor, shape (in, in).
        quant: The number format, the damping and the order of columns.
        shrink: How much each group's range is narrowed, as in `fit_grid`: none, one or two tensors of shape (out, groups).
        names: The layers, for messages.

    Returns:
        The rounded weight.

    Raises:
        UserError: If the Hessian is not positive definite, however much it is damped.

    Reference: Frantar et al. 2023.
    """
    width = weight.shape[1]
    group_of = group_index(width, quant)
    stored = len(group_of)
    H = torch.nn.functional.pad(hessian, (0, stored - width, 0, stored - width)) if stored > width else hessian.clone()
    order = torch.argsort(H.diagonal(), descending=True) if quant.desc_act else torch.arange(stored, device=H.device)
    dead = H.diagonal() == 0  # Inputs that were always zero: their weights are rounded to nearest.
    H.diagonal()[dead] = 1.0 if dead.all() else H.diagonal()[~dead].mean()
    if quant.desc_act:
        H = H[order][:, order]
    # Columns of W as contiguous rows: everything below reads and writes whole columns.
    W = torch.nn.functional.pad(weight.detach().float(), (0, stored - width)).T[order].clone()
    Hinv = _inverse_factor(H, quant.damp_percent, names)
    del H

    units = torch.empty(stored, len(weight), device=W.device)
    group, diagonal = group_of.tolist(), Hinv.diagonal().tolist()
    column, unit, factor = W.unbind(), units.unbind(), Hinv.unbind()
    sizes, whole = torch.bincount(group_of).tolist(), whole_scale(weight, quant)
    scales: list[torch.Tensor] = []
    zeros: list[torch.Tensor] = []
    grids: list[tuple[torch.Tensor, torch.Tensor]] = []  # both in float32: a conversion a column would be a launch on a GPU

    def enter_groups(end: int) -> None:
        """Fix the scales of the groups that begin before `end`."""
        while (first := sum(sizes[: len(scales)])) < end:
            values = W[first : first + sizes[len(scales)]].T
            narrower = (factors[:, len(scales)] for factors in shrink)
            scale, zero = fit_grid(values if quant.group_size else values.reshape(1, -1), quant, *narrower, whole=whole)
            scales.append(scale)
            zeros.append(zero)
            grids.append((scale.float(), zero.float()))

    for start in range(0, stored, COLUMNS):
        end = min(start + COLUMNS, stored)
        if quant.format not in BLOCKS:
            enter_groups(end)
        errors = torch.empty_like(W[start:end])
        for first in range(start, end, FEW):
            last = min(first + FEW, end)
            with _one_thread():
                for i in range(first, last):
                    if quant.format in BLOCKS:
                        enter_groups(i + 1)
                    s, zero = grids[group[i]]
                    unit[i].copy_(to_units(column[i], s, zero, quant))
                    error = torch.sub(column[i], s * unit[i], out=errors[i - start]).div_(diagonal[i])
                    W[i + 1 : last].addr_(factor[i][i + 1 : last], error, alpha=-1)
            W[last:end].addmm_(Hinv[first:last, last:end].T, errors[first - start : last - start], alpha=-1)
        W[end:].addmm_(Hinv[start:end, end:].T, errors, alpha=-1)
    original = torch.argsort(order)
    group_of = group_of.to(original.device)[original]
    grid = torch.stack(scales, 1), torch.stack(zeros, 1)
    return weight_from_units(units[original].T.contiguous(), grid, group_of, width, quant, whole)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread inside the `with` block: operations on a column take less time than waking other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _inverse_factor(H: torch.Tensor, damp_percent: float, names: str) -> torch.Tensor:
    """Return the upper Cholesky factor of (H + λI)⁻¹, λ = damp_percent · mean(diag H), raised tenfold until it exists.

    H (n, n) is damped in place; every further damping is logged.
    """
    mean, damp, added = H.diagonal().mean(), damp_percent, 0.0
    while damp <= 1:
        H.diagonal().add_((damp - added) * mean)
        added = damp
        inverse = inverse_of_upper_factor(H.clone())
        if inverse is not None:
            return inverse
        log.warning("%s: the Hessian is not positive definite with damping %g: trying %g", names, damp, damp * 10)
        damp *= 10
    raise UserError(
        f"The Hessian of {names} is not positive definite, even damped by {damp / 10:g} of its mean diagonal "
        f"(quant.damp_percent={damp_percent:g}, raised tenfold at a time). Give more calibration text (calib.nsamples)."
    )


def inverse_of_upper_factor(H: torch.Tensor) -> torch.Tensor | None:
    """Return U⁻¹ for the upper U with H = U Uᵀ, in H's own memory; None if H (n, n) is not positive definite.

    U is computed tile by tile from the last rows up, and inverted from the first down. Of H only the tiles on and above
    the diagonal are read; LAPACK's calls for a lower factor would need it backwards, in several copies.
    """
    tiles = [slice(start, min(start + TILE, len(H))) for start in range(0, len(H), TILE)]
    failed = []
    for number, tile in reversed(list(enumerate(tiles))):
        backwards, failure = torch.linalg.cholesky_ex(H[tile, tile].flip(0, 1))
        failed.append(failure)  # Looked at in the end: a look at each would wait for a GPU.
        identity = torch.eye(len(backwards), dtype=H.dtype, device=H.device)
        H[tile, tile] = torch.linalg.solve_triangular(backwards.flip(0, 1), identity, upper=True)
        above = H[: tile.start, tile] @ H[tile, tile].T
        H[: tile.start, tile] = above
        for row in tiles[:number]:
            H[row, row.start : tile.start].addmm_(above[row], above[row.start :].T, alpha=-1)
    for number, tile in enumerate(tiles):
        above = H[: tile.start, tile] @ H[tile, tile]
        for row in tiles[:number]:
            torch.mm(H[row, row.start : tile.start], above[row.start :], out=H[row, tile]).neg_()
        H[tile, : tile.start] = 0
    return None if torch.stack(failed).any() or not H.sum().isfinite() else H
