"""Headers of GGUF files: what is read from them, and files that are damaged or lie."""

from __future__ import annotations

import math
import struct
import tracemalloc

import numpy as np
import pytest

from bitsure.base.errors import UserError
from bitsure.models.gguf.gguf_header import read_gguf
from tests.builders.marks import needs_transformers_5

pytestmark = needs_transformers_5
F32, Q4_0, I8, STRING, UINT32, ARRAY = 0, 2, 24, 8, 4, 9
UINT8, INT32 = 0, 5


def text(value: str | bytes) -> bytes:
    encoded = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str = "a", shape: tuple[int, ...] = (32, 2), kind: int = F32, offset: int = 0) -> bytes:
    """An entry of the table of tensors; the shape is in GGUF's order, columns first."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


FLOAT32 = 6
LLAMA = entry("general.architecture", STRING, text("llama"))


def size(key: str, value: int) -> bytes:
    """An entry of a size of the model."""
    return entry(f"llama.{key}", UINT32, struct.pack("<I", value))


TENSOR = tensor()


def file_of(metadata=(LLAMA,), tensors=(TENSOR,), data=bytes(256), version=3, counts=None, magic=b"GGUF") -> bytes:
    counted = counts or (len(tensors), len(metadata))
    header = magic + struct.pack("<IQQ", version, *counted) + b"".join(metadata) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data


def test_metadata_and_tensors_are_read(tmp_path):
    path = tmp_path / "m.gguf"
    values = np.arange(64, dtype="<f4")
    half = entry("words", ARRAY, struct.pack("<IQ", STRING, 2) + text("one") + text("zwei"))
    tensors = (tensor(), tensor("b", (32, 1), Q4_0, 256))
    path.write_bytes(file_of((LLAMA, half, entry("n", UINT32, struct.pack("<I", 7))), tensors, values.tobytes() + bytes(18)))
    gguf = read_gguf(path)
    assert gguf.architecture == "llama" and gguf.metadata["words"] == ["one", "zwei"] and gguf.metadata["n"] == 7
    assert [(t.name, t.shape, t.type.name, t.bytes) for t in gguf.tensors.values()] == [
        ("a", (2, 32), "F32", 256),
        ("b", (1, 32), "Q4_0", 18),
    ]
    assert np.array_equal(gguf.values("a"), values.reshape(2, 32)) and gguf.blocks("b").shape == (1, 18)


def test_millions_of_numbers_take_little_more_memory_than_their_bytes(tmp_path):
    many, few = struct.pack("<IQ", UINT8, 10**6) + bytes(10**6), struct.pack("<IQ3i", INT32, 3, -1, 0, 7)
    (tmp_path / "m.gguf").write_bytes(file_of((LLAMA, entry("many", ARRAY, many), entry("few", ARRAY, few))))
    tracemalloc.start()
    gguf = read_gguf(tmp_path / "m.gguf")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(gguf.metadata["many"]) == 10**6 and list(gguf.metadata["few"]) == [-1, 0, 7]
    assert peak < 5 * 10**6


WHOLE = file_of()
BROKEN = {
    "empty": (b"", "ends before its first number"),
    "another file": (b"PK\3\4" + bytes(100), "is no GGUF file: it begins with b'PK"),
    "an old version": (file_of(version=1), "is of version 1: GGUF of versions 2 and 3"),
    "big-endian": (WHOLE[:4] + struct.pack(">I", 3) + WHOLE[8:], "big-endian"),
    "cut in its header": (WHOLE[:40], "cut short or damaged"),
    "cut in a tensor": (WHOLE[:-1], r"a ends at byte \d+, and the file has \d+"),
    "too many tensors": (file_of(counts=(2**60, 1)), "cut short or damaged"),
    "too many values": (file_of(counts=(1, 2**60)), "cut short or damaged"),
    "a text without end": (file_of((struct.pack("<Q", 2**62),)), "counts 4,611,686,018,427,387,904 values where"),
    "an array without end": (file_of((entry("a", ARRAY, struct.pack("<IQ", STRING, 2**50)),)), "its header counts"),
    "numbers without end": (file_of((entry("a", ARRAY, struct.pack("<IQ", UINT32, 2**50)),)), "its header counts"),
    "a nested array": (file_of((entry("a", ARRAY, struct.pack("<IQ", ARRAY, 1)),)), "an array of the type 9"),
    "no such type of value": (file_of((entry("a", 77, b""),)), "a value of the type 77"),
    "not UTF-8": (file_of((entry(b"\xff\xfe", UINT32, bytes(4)),)), "is not UTF-8"),
    "a key twice": (file_of((LLAMA, LLAMA)), "its metadata has general.architecture twice"),
    "no architecture": (file_of(()), "no general.architecture"),
    "alignment 0": (file_of((LLAMA, entry("general.alignment", UINT32, bytes(4)))), "general.alignment is 0"),
    "a part": (file_of((LLAMA, entry("split.count", UINT32, struct.pack("<I", 3)))), "llama-gguf-split --merge"),
    "an unknown type": (file_of(tensors=(tensor(kind=99),)), "a is of the type number 99.*decodes F32, F16, Q4_0"),
    "a type of integers": (file_of(tensors=(tensor(kind=I8),)), "a is of the type I8, which the package gguf does not"),
    "half a block": (file_of(tensors=(tensor(shape=(33, 2), kind=Q4_0),)), "rows are not whole blocks of 32"),
    "no weights": (file_of(tensors=(tensor(shape=(32, 0)),)), "rows are not whole blocks"),
    "many dimensions": (file_of(tensors=(tensor(shape=(1,) * 9),)), "has 9 dimensions"),
    "an odd place": (file_of(tensors=(tensor(offset=3),)), "no multiple of 32"),
    "a name twice": (file_of(tensors=(tensor(), tensor(offset=256)), data=bytes(512)), "it has a twice"),
    "one on the other": (file_of(tensors=(tensor(), tensor("b", offset=32)), data=bytes(512)), "a and b lie on the same bytes"),
    "blocks that are not there": (file_of((LLAMA, size("block_count", 10**6))), "block_count is 1000000, .*of 0 blocks"),
    "blocks left out": (file_of((LLAMA, size("block_count", 0)), (tensor("blk.0.a"),)), "block_count is 0, .*of 1 blocks"),
    "wider than its tensors": (file_of((LLAMA, size("embedding_length", 10**9))), "no tensor has more than 32 rows or columns"),
    "no context": (file_of((LLAMA, size("context_length", 0))), "its llama.context_length is 0"),
    "no positions": (file_of((LLAMA, entry("llama.rope.freq_base", FLOAT32, struct.pack("<f", math.nan)))), "freq_base is nan"),
    "far more than there is": (file_of(tensors=(tensor(shape=(2**40, 2**20)),)), "ends at byte"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_damaged_or_lies_is_refused_with_its_name(case, tmp_path):
    content, reason = BROKEN[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as refused:
        read_gguf(path)
    assert str(path) in str(refused.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.gguf: no such file"):
        read_gguf(tmp_path / "none.gguf")
