"""The full model's states of a text in the store: computed once, they give its logits again beside every quantized model.

A token's state takes the model's width, its logits the vocabulary. Reading a state takes a fraction of the time of a pass
through the blocks, so states are kept wherever there is room for them.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.base import terminal
from bitsure.base.byte_sizes import binary_size, decimal_size
from bitsure.base.progress import progress
from bitsure.base.store import Store
from bitsure.models.locate import Source
from bitsure.models.size import width_of
from bitsure.scoring.scored_model import LocalSetup
from bitsure.scoring.texts.kept_states import KeptStates, StatesWriter, writing_states
from bitsure.scoring.texts.tokenized_text import TextWindow

if TYPE_CHECKING:
    from bitsure.scoring.texts.text_pass import FullModel, TextModel

log = logging.getLogger(__name__)

KIND = "states"  # of the store's entries
DISK_SHARE = 0.1  # of what is free on the store's disk: states that take more are computed again for each quantizer


class BaselineStates:
    """The full model's states of one text.

    Args:
        setup: How models are loaded.
        source: The full-precision model.
        store: Where states are kept.
        log_file: Where the output of libraries goes.
        made_from: What identifies model, text, type and libraries.
    """

    def __init__(self, setup: LocalSetup, source: Source, store: Store, log_file: Path, made_from: dict[str, Any]) -> None:
        self._setup, self._source, self._store, self._log_file = setup, source, store, log_file
        self._made_from = made_from

    @contextmanager
    def writer(self, model: TextModel, windows: Sequence[TextWindow]) -> Iterator[StatesWriter | None]:
        """Yield what keeps the states of all windows, in their order; None where they cannot be kept, or are kept already.

        Args:
            model: The full model.
            windows: The windows.
        """
        if model.why_whole or not self._have_room(model, windows):
            yield None
            return
        with self._store.lock(KIND, self._made_from):
            if self._store.find(KIND, self._made_from, to_read=True):
                yield None
                return
            started = time.monotonic()
            with self._store.create(KIND, self._made_from) as folder, writing_states(folder) as writer:
                yield writer
            log.info("full precision's states: %s, made in %.1f s", decimal_size(writer.size), time.monotonic() - started)

    def full_model(self, windows: Sequence[TextWindow], start: int) -> FullModel:
        """Return the full model's logits of the windows from number `start` on.

        They are made from kept states, which are computed first if there are none; or the full model runs again beside the
        quantized one, where states cannot be kept.
        """
        from bitsure.scoring.texts.text_pass import KeptFullModel, TextModel

        with terminal.output_to(self._log_file):
            model = TextModel(self._setup.load(self._source, None).model)
        entry = self._store.find(KIND, self._made_from, to_read=True)
        if entry is None:
            with self.writer(model, windows) as writer:
                if writer is not None:
                    self._write_all(model, windows, writer)
            entry = self._store.find(KIND, self._made_from, to_read=True)
        if entry is None or model.why_whole:
            return model
        return KeptFullModel(model.model, KeptStates(entry, sum(len(window.scored) for window in windows[:start])))

    def _write_all(self, model: TextModel, windows: Sequence[TextWindow], writer: StatesWriter) -> None:
        done = 0
        with (
            progress("full precision's states of the text", len(windows), "windows") as advance,
            terminal.output_to(self._log_file),
        ):
            while done < len(windows):
                batch = model.next_batch(windows[done:])
                writer.write(model.states(batch))
                done += len(batch)
                advance(len(batch))

    def _have_room(self, model: TextModel, windows: Sequence[TextWindow]) -> bool:
        needed = state_bytes(model, windows)
        root = self._store.root.absolute()
        place = next(folder for folder in (root, *root.parents) if folder.exists())
        free = shutil.disk_usage(place).free
        if needed <= DISK_SHARE * free:
            return True
        log.warning(
            "full precision's states would take %s, more than a tenth of the %s that are free in %s: it runs again "
            "beside each quantized model",
            binary_size(needed),
            binary_size(free),
            root,
        )
        return False


def state_bytes(model: TextModel, windows: Sequence[TextWindow]) -> int:
    """Return about how many bytes the states of windows take."""
    tokens = sum(len(window.scored) for window in windows)
    return tokens * width_of(model.model) * model.model.dtype.itemsize
