"""Orthogonal matrices that are quick to multiply by: random Hadamard matrices, or their like where none is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

LARGEST = 1024  # order of a factor that no smaller one makes up


@dataclass(frozen=True)
class Orthogonal:
    """R = diag(signs) · (left ⊗ right) · (I − 2vvᵀ), orthogonal, (n, n), for rows x that become xR."""

    signs: torch.Tensor
    """±1, (n,) float64."""
    left: torch.Tensor
    """Orthogonal, (m, m) float64."""
    right: torch.Tensor
    """Orthogonal, (n / m, n / m) float64."""
    reflection: torch.Tensor | None = None
    """v, of length 1, (n,) float64; None: no reflection."""

    @property
    def width(self) -> int:
        """The number n of rows."""
        return len(self.signs)

    @property
    def name(self) -> str:
        """What it is made of, such as `Hadamard 12 ⊗ Hadamard 128`."""
        return " ⊗ ".join(_kind(part) for part in (self.left, self.right) if len(part) > 1) or "sign"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return xR, of the shape (…, n) and the type of x."""
        left, right, signs = (part.to(x) for part in (self.left, self.right, self.signs))
        parts = (x * signs).reshape(*x.shape[:-1], len(left), len(right))
        product: torch.Tensor = (left.T @ (parts @ right)).flatten(-2)
        if self.reflection is None:
            return product
        v = self.reflection.to(x)
        reflected: torch.Tensor = product - 2 * (product @ v)[..., None] * v
        return reflected

    def back(self, x: torch.Tensor) -> torch.Tensor:
        """Return xRᵀ, of the shape (…, n) and the type of x."""
        left, right, signs = (part.to(x) for part in (self.left, self.right, self.signs))
        if self.reflection is not None:
            v = self.reflection.to(x)
            x = x - 2 * (x @ v)[..., None] * v
        parts = x.reshape(*x.shape[:-1], len(left), len(right))
        product: torch.Tensor = (left @ (parts @ right.T)).flatten(-2) * signs
        return product

    def on(self, device: torch.device) -> Orthogonal:
        """Return the same with tensors on a device."""
        return replace(self, **{key: part.to(device) for key, part in vars(self).items() if part is not None})

    def keeping_ones(self) -> Orthogonal:
        """Return R(I − 2vvᵀ) with the v for which it maps the vector of ones to itself: means of rows stay what they are."""
        difference = 1 - self(torch.ones_like(self.signs))
        return replace(self, reflection=difference / difference.norm().clamp(min=1e-300))


def random_hadamard(width: int, generator: torch.Generator) -> Orthogonal:
    """Return a random Hadamard matrix: rows with random signs, columns ±1/√n.

    With n = 2^k · m, m odd, it is one of Paley's matrices of an order 2^j · m, times Sylvester's for the rest. Where no such
    order up to 1,024 is known, a random orthogonal matrix of order m takes Paley's place, which mixes all channels too.

    Args:
        width: n.
        generator: Draws the signs, and the random orthogonal matrix.

    Reference: Ashkboos et al. 2024 (QuaRot), section 3; Paley 1933.
    """
    signs = 2.0 * torch.randint(0, 2, (width,), generator=generator).double() - 1
    odd, twos = width, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    if odd == 1:
        return Orthogonal(signs, _sylvester(twos - twos // 2), _sylvester(twos // 2))
    for used in range(2, twos + 1):
        order = odd << used
        if order <= LARGEST and (paley := _paley(order)) is not None:
            return Orthogonal(signs, paley, _sylvester(twos - used))
    q, r = torch.linalg.qr(torch.randn(odd, odd, generator=generator, dtype=torch.float64))
    return Orthogonal(signs, (q * r.diagonal().sign()).contiguous(), _sylvester(twos))


def _sylvester(twos: int) -> torch.Tensor:
    """Return Sylvester's Hadamard matrix of order 2^twos, orthogonal."""
    small, whole = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for _ in range(twos):
        whole = torch.kron(whole, small)
    return whole.div(len(whole) ** 0.5)


def _paley(order: int) -> torch.Tensor | None:
    """Return Paley's Hadamard matrix of an order, orthogonal; None if neither construction with a prime has it."""
    if _is_prime(q := order - 1) and q % 4 == 3:
        skew = _bordered(q)
        skew[1:, 0] = -1
        return (torch.eye(order, dtype=torch.float64) + skew).div(order**0.5)
    if _is_prime(q := order // 2 - 1) and q % 4 == 1:
        ones, signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
        conference = torch.kron(_bordered(q), ones.double()) + torch.kron(torch.eye(q + 1).double(), signs.double())
        return conference.div(order**0.5)
    return None


def _bordered(q: int) -> torch.Tensor:
    """Return the matrix of the quadratic characters of i − j modulo a prime q, bordered by ones, (q + 1, q + 1)."""
    character = torch.full((q,), -1.0, dtype=torch.float64)
    character[torch.arange(1, q) ** 2 % q] = 1
    character[0] = 0
    bordered = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    bordered[0, 1:] = bordered[1:, 0] = 1
    index = torch.arange(q)
    bordered[1:, 1:] = character[(index[:, None] - index) % q]
    return bordered


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _kind(part: torch.Tensor) -> str:
    flat = part.abs().amax() - part.abs().amin() < 1e-9
    return f"{'Hadamard' if flat else 'orthogonal'} {len(part)}"
