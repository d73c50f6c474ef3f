"""GPTQ in plain torch (Frantar et al. 2023): round column by column, and let the columns to come make up for the error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitsure.base.errors import UserError
from bitsure.config.number_formats import MX
from bitsure.config.quantizers import GptqSettings
from bitsure.quantize.weights import ElementWeight, IntegerWeight
from bitsure.quantize.weights.grid import fit_grid, group_index, to_units, weight_from_units

log = logging.getLogger(__name__)

COLUMNS = 128  # rounded before what they owe to all later columns is paid at once (algorithm 1's B)
TILE = 256  # of a Hessian, factored at once
FEW = 32  # of these, before what they owe to the rest of the block is; a block of an MX format


def round_with_hessian(
    weight: torch.Tensor, hessian: torch.Tensor, quant: GptqSettings, shrink: tuple[torch.Tensor, ...], names: str
) -> IntegerWeight | ElementWeight:
    """Quantize W (out, in) so that ‖(Ŵ − W)X‖ is small, H = XXᵀ up to a factor (in, in); algorithm 1 in the paper's symbols.

    shrink: none, one or two of (out, groups), as in `fit_grid`; names: the layers, for messages. A group's scales are set
    from what its weights are when the block of columns it begins in are reached, as in the paper's own code, and when the group
    itself is reached where it is a block of an MX format. With desc_act columns go in the order of their squared input, and
    groups are of columns that follow each other in that order.
    """
    width = weight.shape[1]
    group_of = group_index(width, quant)
    stored = len(group_of)
    H = torch.nn.functional.pad(hessian, (0, stored - width, 0, stored - width)) if stored > width else hessian.clone()
    order = torch.argsort(H.diagonal(), descending=True) if quant.desc_act else torch.arange(stored, device=H.device)
    dead = H.diagonal() == 0  # inputs that were always zero: their weights are rounded to nearest, whatever the others do
    H.diagonal()[dead] = 1.0 if dead.all() else H.diagonal()[~dead].mean()
    if quant.desc_act:
        H = H[order][:, order]
    # columns of W as rows, contiguous: all below reads and writes whole columns
    W = torch.nn.functional.pad(weight.detach().float(), (0, stored - width)).T[order].clone()
    Hinv = _inverse_factor(H, quant.damp_percent, names)
    del H

    units = torch.empty(stored, len(weight), device=W.device)
    group, diagonal = group_of.tolist(), Hinv.diagonal().tolist()
    column, unit, factor = W.unbind(), units.unbind(), Hinv.unbind()
    sizes = torch.bincount(group_of).tolist()
    scales: list[torch.Tensor] = []
    zeros: list[torch.Tensor] = []

    def enter_groups(end: int) -> None:
        """Fix the scales of the groups that begin before `end`."""
        while (first := sum(sizes[: len(scales)])) < end:
            values = W[first : first + sizes[len(scales)]].T
            narrower = (one[:, len(scales)] for one in shrink)
            scale, zero = fit_grid(values if quant.group_size else values.reshape(1, -1), quant, *narrower)
            scales.append(scale)
            zeros.append(zero)

    for start in range(0, stored, COLUMNS):
        end = min(start + COLUMNS, stored)
        if quant.format not in MX:
            enter_groups(end)
        errors = torch.empty_like(W[start:end])
        for first in range(start, end, FEW):
            last = min(first + FEW, end)
            with _one_thread():
                for i in range(first, last):
                    if quant.format in MX:
                        enter_groups(i + 1)
                    s = scales[group[i]].float()
                    unit[i].copy_(to_units(column[i], s, zeros[group[i]], quant))
                    error = torch.sub(column[i], s * unit[i], out=errors[i - start]).div_(diagonal[i])
                    W[i + 1 : last].addr_(factor[i][i + 1 : last], error, alpha=-1)
            W[last:end].addmm_(Hinv[first:last, last:end].T, errors[first - start : last - start], alpha=-1)
        W[end:].addmm_(Hinv[start:end, end:].T, errors, alpha=-1)
    back = torch.argsort(order)
    group_of = group_of.to(back.device)[back]
    return weight_from_units(units[back].T.contiguous(), torch.stack(scales, 1), torch.stack(zeros, 1), group_of, width, quant)


@contextmanager
def _one_thread() -> Iterator[None]:
    """For operations on a column each: to wake other threads would take longer than to do them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _inverse_factor(H: torch.Tensor, damp_percent: float, names: str) -> torch.Tensor:
    """The upper Cholesky factor of (H + λI)⁻¹, λ = damp_percent · mean(diag H), raised tenfold (and said) until it exists.

    H (n, n) is damped in place.
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
    """U⁻¹ for the upper U with H = U Uᵀ, in H's own memory; None where H (n, n) is not positive definite.

    U is found tile by tile from the last rows up, and inverted from the first down. Of H only the tiles on and above
    the diagonal are read; LAPACK's calls for a lower factor would need it backwards, in several copies.
    """
    tiles = [slice(start, min(start + TILE, len(H))) for start in range(0, len(H), TILE)]
    for number, tile in reversed(list(enumerate(tiles))):
        backwards, failed = torch.linalg.cholesky_ex(H[tile, tile].flip(0, 1))
        if failed:
            return None
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
    return H if H.sum().isfinite() else None
