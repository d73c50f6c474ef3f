"""Which type llama.cpp gives each tensor of a file: its mixtures, and what it falls back to where widths do not fit.

Reference: `llama_tensor_get_type` and `tensor_type_fallback` in llama.cpp's src/llama-quant.cpp, for dense decoders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bitsure.base.errors import UserError

DEFAULTS = {  # kind of file → the type of most tensors
    **dict.fromkeys(("q2_k", "q2_k_s"), "Q2_K"),
    **dict.fromkeys(("q3_k_s", "q3_k_m", "q3_k_l"), "Q3_K"),
    **dict.fromkeys(("q4_k_s", "q4_k_m"), "Q4_K"),
    **dict.fromkeys(("q5_k_s", "q5_k_m"), "Q5_K"),
    **{kind.lower(): kind for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS")},
    **{kind.lower(): kind for kind in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ3_XXS")},
    **{"iq2_s": "IQ2_XS", "iq2_m": "IQ2_S"},
    **dict.fromkeys(("iq3_xs", "iq3_s", "iq3_m"), "IQ3_S"),
    **{"tq1_0": "TQ1_0", "tq2_0": "TQ2_0"},
}
# Kinds whose types llama.cpp rounds with an importance matrix alone.
NEED_IMATRIX = ("q2_k_s", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs")
FALLBACKS = {  # types with blocks of 256 → types with blocks of 32
    **{"TQ1_0": "Q4_0", "TQ2_0": "Q4_0", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"},
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
}
LARGE, SMALL = 256, 32  # weights in a block
OF_70B = 80  # blocks of a model whose values llama.cpp keeps in more bits
LOWEST = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m")  # kinds with rules of their own inside blocks
EMBEDDINGS = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs"), "Q2_K"),
    **dict.fromkeys(("iq2_s", "iq2_m", "iq3_xxs"), "IQ3_S"),
    **dict.fromkeys(("tq1_0", "tq2_0"), "Q4_K"),
}
OUTPUTS_OF_ATTENTION = {
    **{"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K", "iq3_xxs": "IQ3_S", "iq3_m": "Q4_K"},
    **dict.fromkeys(("iq1_s", "iq1_m"), "IQ2_XXS"),
    **dict.fromkeys(("iq2_s", "iq2_m"), "IQ3_S"),
}
QUERIES_AND_KEYS = {"iq3_xs": "IQ3_XXS", "iq3_xxs": "IQ2_S"}


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
            chosen = self._head(width)
        elif name == "token_embd.weight":
            chosen = EMBEDDINGS.get(self.kind, self._usual)
        else:
            chosen = self._in_block(name)
        return self._fitting(name, width, chosen)

    @property
    def _usual(self) -> str:
        return DEFAULTS[self.kind]

    def _head(self, width: int) -> str:
        """Return the type of the head, which may be the embedding."""
        if self._usual == "Q8_0" or width % (LARGE if self._usual in FALLBACKS else SMALL):
            return "Q8_0"
        return "Q5_K" if self.kind in (*LOWEST, "iq3_xxs") else "Q6_K"

    def _in_block(self, name: str) -> str:
        inside = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        if inside is None:
            return self._usual
        block, matrix = int(inside[1]), inside[2]
        chosen = {
            "attn_q": QUERIES_AND_KEYS.get(self.kind),
            "attn_k": QUERIES_AND_KEYS.get(self.kind),
            "attn_v": self._values(block),
            "attn_output": OUTPUTS_OF_ATTENTION.get(self.kind),
            "ffn_gate": self._gate_and_up(block),
            "ffn_up": self._gate_and_up(block),
            "ffn_down": self._down(block),
        }.get(matrix)
        return chosen or self._usual

    def _values(self, block: int) -> str | None:
        """Return the type of the values' matrix of a block; None for the usual one."""
        chosen = self._values_of_shared_heads() if self.shared_heads >= 4 else None
        chosen = chosen or self._values_of_kind(block) or self._usual
        large = self.blocks == OF_70B and self.shared_heads > 1 and self.kind not in LOWEST
        return "Q5_K" if large and chosen in ("Q3_K", "Q4_K") else chosen

    def _values_of_shared_heads(self) -> str | None:
        """Return the type of the values' matrix where it is small, because four or more heads of queries share it."""
        if self.kind in (*LOWEST, "q2_k", "q2_k_s", "iq3_xxs", "iq3_xs", "iq3_s"):
            return "Q4_K"
        return "Q5_K" if self.kind in ("iq4_nl", "iq4_xs") else None

    def _values_of_kind(self, block: int) -> str | None:
        more = "Q6_K" if self._has_more_bits(block) else None
        return {
            **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs"), "Q2_K"),
            **dict.fromkeys(("iq2_s", "iq2_m"), "IQ3_S"),
            "iq3_m": "Q4_K",
            "q2_k": "Q3_K",
            "q3_k_m": "Q5_K" if block < 2 else "Q4_K",
            "q3_k_l": "Q5_K",
            "q4_k_s": "Q5_K" if block < 4 else None,
            "q4_k_m": more,
            "q5_k_m": more,
        }.get(self.kind)

    def _gate_and_up(self, block: int) -> str | None:
        """Return the type of the first matrices of a block's MLP; None for the usual one."""
        inner = self.blocks // 8 <= block < 7 * self.blocks // 8
        return "IQ3_XXS" if self.kind == "iq3_xs" and inner else None

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
            **(self._first_down() if first else {}),
            "iq4_nl": "Q5_K" if first and without else None,
            "iq4_xs": "Q5_K" if first and without else None,
            "q4_0": None if without or not first else "Q4_1",
            "q5_0": None if without or not first else "Q5_1",
        }.get(self.kind)

    def _first_down(self) -> dict[str, str]:
        """Return kind → the type of the last matrix of the first eighth of the blocks, if it is an own one."""
        return {
            **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs"), "Q2_K"),
            **dict.fromkeys(("iq2_s", "iq2_m"), "IQ3_S"),
            **{"q2_k_s": "Q4_K", "iq3_m": "Q4_K", "q4_k_s": "Q5_K"},
        }

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
