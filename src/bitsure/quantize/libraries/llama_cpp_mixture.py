"""Which type llama.cpp gives each tensor of a file: its mixtures, and what it falls back to where widths do not fit.

Reference: `llama_tensor_get_type` and `tensor_type_fallback` in llama.cpp's src/llama-quant.cpp, for dense decoders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bitsure.base.errors import UserError

DEFAULTS = {  # kind of file → the type of most tensors
    "q2_k": "Q2_K",
    **dict.fromkeys(("q3_k_s", "q3_k_m", "q3_k_l"), "Q3_K"),
    **dict.fromkeys(("q4_k_s", "q4_k_m"), "Q4_K"),
    **dict.fromkeys(("q5_k_s", "q5_k_m"), "Q5_K"),
    **{kind.lower(): kind for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS")},
}
FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}  # 256 → 32
LARGE, SMALL = 256, 32  # weights in a block
OF_70B = 80  # blocks of a model whose values llama.cpp keeps in more bits


@dataclass(frozen=True)
class Mixture:
    """A kind of file and what of the model the choice of types depends on."""

    kind: str
    """Such as `q4_k_m`."""
    blocks: int
    """The number of the model's blocks."""
    shared_heads: int
    """Heads of queries that share one of keys and values."""
    tied: bool
    """Whether the head is the embedding."""
    has_imatrix: bool

    def choose(self, name: str, width: int) -> str:
        """Return the type of a matrix.

        Args:
            name: Its name in the file.
            width: Its columns.

        Raises:
            UserError: If llama.cpp writes no such matrix in this kind of file.
        """
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            block = LARGE if self._usual in FALLBACKS else SMALL
            chosen = "Q8_0" if width % block or self._usual == "Q8_0" else "Q6_K"
        else:
            chosen = self._in_block(name)
        return self._fitting(name, width, chosen)

    @property
    def _usual(self) -> str:
        return DEFAULTS[self.kind]

    def _in_block(self, name: str) -> str:
        inside = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        if inside is None:
            return self._usual
        block = int(inside[1])
        if inside[2] == "attn_v":
            chosen = self._values(block) or self._usual
            return "Q5_K" if self.blocks == OF_70B and chosen in ("Q3_K", "Q4_K") else chosen
        chosen_by_layer = {
            "ffn_down": self._down(block),
            "attn_output": {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(self.kind),
        }
        return chosen_by_layer.get(inside[2]) or self._usual

    def _values(self, block: int) -> str | None:
        """Return the type of the values' matrix of a block; None for the usual one."""
        more = "Q6_K" if self._has_more_bits(block) else None
        many = self.shared_heads >= 4
        return {
            "q2_k": "Q4_K" if many else "Q3_K",
            "q3_k_m": "Q5_K" if block < 2 else "Q4_K",
            "q3_k_l": "Q5_K",
            "q4_k_s": "Q5_K" if block < 4 else None,
            "q4_k_m": more,
            "q5_k_m": more,
            "iq4_nl": "Q5_K" if many else None,
            "iq4_xs": "Q5_K" if many else None,
        }.get(self.kind)

    def _down(self, block: int) -> str | None:
        """Return the type of the last matrix of a block; None for the usual one."""
        more = "Q6_K" if self._has_more_bits(block) else None
        first, without = block < self.blocks // 8, not self.has_imatrix
        return {
            "q2_k": "Q3_K",
            "q3_k_m": "Q5_K" if block < self.blocks // 16 else "Q4_K",
            "q3_k_l": "Q5_K",
            "q4_k_m": more,
            "q5_k_m": more,
            "q4_k_s": "Q5_K" if first else None,
            "iq4_nl": "Q5_K" if first and without else None,
            "iq4_xs": "Q5_K" if first and without else None,
            "q4_0": None if without or not first else "Q4_1",
            "q5_0": None if without or not first else "Q5_1",
        }.get(self.kind)

    def _has_more_bits(self, block: int) -> bool:
        eighth = self.blocks // 8
        return block < eighth or block >= 7 * self.blocks // 8 or (block - eighth) % 3 == 2

    def _fitting(self, name: str, width: int, chosen: str) -> str:
        """Return a type whose blocks fill the rows."""
        if width % (LARGE if chosen in FALLBACKS else SMALL) == 0:
            return chosen
        if chosen not in FALLBACKS:
            raise UserError(
                f"quant={self.kind}: {name} has rows of {width} weights, which blocks of {SMALL} do not fill, and llama.cpp "
                "has no other type for it. Take a kind with K, such as q4_k_m, where such a matrix stays in F16."
            )
        return "F16" if width % SMALL else FALLBACKS[chosen]
