"""The switch that keeps huggingface_hub and datasets from using the network."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def is_offline() -> bool:
    """Return whether nothing may be downloaded: HF_HUB_OFFLINE is set, or an `offline` block is open."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@contextmanager
def offline() -> Iterator[None]:
    """Download nothing within the block: what is not on this machine raises NotHere.

    This changes a constant of huggingface_hub for the whole process, all of its threads, until the block ends. It is the only
    switch that the hub's client and `datasets` both obey; `datasets.load_dataset` has no argument for it. `datasets` copies the
    constant when it is imported, so a copy that was taken within the block is corrected at its end.
    """
    from huggingface_hub import constants

    before, imported_before = constants.HF_HUB_OFFLINE, "datasets" in sys.modules
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        if "datasets" in sys.modules and not imported_before and "HF_DATASETS_OFFLINE" not in os.environ:
            import datasets.config

            datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = before
