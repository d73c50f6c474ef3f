"""Cut names to the limits of Weights & Biases, so that different names stay different."""

from __future__ import annotations

from hashlib import blake2b

TAG_BYTES = 64  # W&B takes tags of 1 to 64 characters
NAME_BYTES = 128  # of a run, a group, an artifact; a key also becomes a part of file names


def fit(name: str, most: int = NAME_BYTES) -> str:
    """Return a name that W&B takes: not empty, and of at most so many bytes in UTF-8.

    Args:
        name: The name.
        most: The limit, above 9.

    Returns:
        The name itself if it fits. A longer one is cut and ends in a hash of the whole.
    """
    encoded = name.encode(errors="replace")
    if len(encoded) <= most:
        return encoded.decode() or "unnamed"
    return f"{encoded[: most - 9].decode(errors='ignore')}-{blake2b(encoded, digest_size=4).hexdigest()}"
