"""Which files are opened within a block: those that bitsure notes, and those that a user's own Python code reads."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

OPENING = ("open", "sqlite3.connect")  # Python's audit events
WRITING = os.O_WRONLY | os.O_RDWR
INSTALLED = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}

_recorders: list[_Recorder] = []  # of the blocks that are open
_hooks: list[str] = []  # Python's audit hooks stay until the process ends: ours is added once


class _Recorder:
    def __init__(self, code: Collection[Path], apart_from: Collection[Path]) -> None:
        self.places: set[Path] = set()
        self._written: set[Path] = set()
        self._code = _prefixes(code)
        self._apart_from = _prefixes([*INSTALLED, *apart_from])

    def opened(self, path: Path, flags: int) -> None:
        """Record a file that is opened while a function of the user's own code runs; one that it writes itself is no source."""
        frame = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith(self._code):
            frame = frame.f_back  # type: ignore[assignment]  # None at the outermost
        if frame is None or str(path.resolve()).startswith(self._apart_from):
            return
        (self._written if flags & WRITING else self.places).add(path)

    def finish(self) -> None:
        self.places -= self._written


def _prefixes(folders: Collection[Path]) -> tuple[str, ...]:
    """Return what the paths of files in folders begin with."""
    return tuple(os.path.join(folder.resolve(), "") for folder in folders)


@contextmanager
def opened_files(code: Collection[Path] = (), apart_from: Collection[Path] = ()) -> Iterator[set[Path]]:
    """Record which files are read within the block.

    Args:
        code: Folders of a user's own Python files. What these open is recorded; other code's files have to be noted.
        apart_from: Folders whose files are not recorded, such as a cache. Installed packages never are.

    Yields:
        The files and folders, complete when the block ends.
    """
    if not _hooks:
        sys.addaudithook(_audit)
        _hooks.append("open")
    recorder = _Recorder(code, apart_from)
    _recorders.append(recorder)
    try:
        with _noting_parquet_files() if code else nullcontext():
            yield recorder.places
    finally:
        _recorders.remove(recorder)
        recorder.finish()


def note(place: Path) -> None:
    """Record a file, a folder or a pattern of file names that is about to be read; it need not exist."""
    for recorder in _recorders:
        recorder.places.add(place.absolute())


@contextmanager
def _noting_parquet_files() -> Iterator[None]:
    """Within the block, treat Parquet files as opened by Python: Arrow, and pandas by it, open them in C++."""
    import pyarrow.parquet.core as parquet

    readers = parquet.ParquetDataset, parquet.ParquetFile
    originals = [reader.__init__ for reader in readers]

    def noting(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def initialize(self: Any, source: Any, *given: Any, **settings: Any) -> None:
            for path in source if isinstance(source, list | tuple) else [source]:
                _audit("open", (path, None, 0))
            original(self, source, *given, **settings)

        return initialize

    for reader, original in zip(readers, originals, strict=True):
        reader.__init__ = noting(original)
    try:
        yield
    finally:
        for reader, original in zip(readers, originals, strict=True):
            reader.__init__ = original


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Python calls this before each of its operations that may matter to someone who watches."""
    if event not in OPENING or not _recorders or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = Path(os.fsdecode(arguments[0])).absolute()
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        with suppress(ValueError):  # the name is not one of Python's own
            path = Path(importlib.util.source_from_cache(str(path)))
    for recorder in _recorders:
        recorder.opened(path, arguments[2] if event == "open" else 0)
