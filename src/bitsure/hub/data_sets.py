"""Data sets as `datasets` reads them: from a mirror that has them, else from its cache, else from the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitsure.base.decoded_size import check_decoded_size, check_size
from bitsure.base.errors import UserError, in_one_line
from bitsure.base.files import as_on_disk, files_at, files_under, hash_json
from bitsure.base.opened_files import note
from bitsure.hub import conversions, mirrors
from bitsure.hub.dataset_calls import DatasetCall
from bitsure.hub.failures import explained, explained_files, is_data_set_error, unusable_cache
from bitsure.hub.fetching import fetch_data_set
from bitsure.hub.repositories import Origin
from bitsure.hub.repository_files import origin_in_cache
from bitsure.hub.retries import retry_while_busy

LoadDataset = Callable[..., Any]  # as `datasets.load_dataset`


@contextmanager
def data_sets_from(mirror: str | None, own_files: str | None = None, fetch: bool = False) -> Iterator[dict[str, Origin]]:
    """Within the block, let `datasets.load_dataset` read repositories from a mirror that has them.

    What `datasets` prepares of local files is kept by their paths, sizes and times. By itself it goes by a folder's name, or by
    the time of a file or of the link to it: files that have changed, or another mirror, would give the old questions.

    Args:
        mirror: The mirror's directory, or None.
        own_files: The folder of the user's own tasks; relative `data_files` are found there, wherever the run starts.
        fetch: Put what is missing into the mirror first.

    Yields:
        Repository → where its files come from; an entry is added when the repository is read. Other files are noted
        (`bitsure.base.opened_files`).
    """
    import datasets

    original = datasets.load_dataset
    reader = _Reader(original, mirror, own_files, fetch)
    datasets.load_dataset = reader.load_dataset
    try:
        yield reader.origins
    finally:
        datasets.load_dataset = original


class _Reader:
    """Stands in for `datasets.load_dataset`."""

    def __init__(self, original: LoadDataset, mirror: str | None, own_files: str | None, fetch: bool) -> None:
        self._original, self._mirror, self._own_files, self._fetch = original, mirror, own_files, fetch
        self._conversions = conversions.Conversions()
        self._checked: set[Path] = set()  # Parquet files whose size was checked
        self.origins: dict[str, Origin] = {}

    def load_dataset(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if self._own_files and kwargs.get("data_files"):
            kwargs["data_files"] = _in_folder(self._own_files, kwargs["data_files"])
        call = DatasetCall(path, args, kwargs)
        if self._mirror and self._fetch and call.is_repository:
            fetch_data_set(call, Path(self._mirror), self._conversions)
        folder = Path(self._mirror, "datasets", path) if self._mirror and call.is_repository else None
        for place in (*call.local_places, *([folder] if folder else [])):  # also a folder that is not there yet
            note(place)
        if folder and folder.is_dir():
            return self._read_mirror(call, folder)
        local = [file for place in call.local_places for file in files_at(place)]
        with (
            explained(call, f"datasets/{path}", self._mirror, is_expected=is_data_set_error),
            explained_files(call, () if call.is_repository else call.local_places),
        ):
            data_set, origin = self._read_hub(call, local)
        if call.is_repository:
            self.origins[path] = origin
        return data_set

    def _read_mirror(self, call: DatasetCall, folder: Path) -> Any:
        """Read a data set from the mirror's folder. Raises UserError if that is not possible."""
        try:
            data_set = self._load(str(folder), files_under(folder), *call.args, **call.kwargs)
            names = [os.path.relpath(file, folder.resolve()) for file in call.files(str(folder))]
            hashes = mirrors.hashes(folder, names)
        except Exception as error:
            if not (is_data_set_error(error) or conversions.is_script_error(error)):
                raise
            if reason := unusable_cache(error):
                raise UserError(f"{call} cannot be read: {reason}") from error
            raise UserError(
                f"{call} cannot be read from the mirror's {folder}: {in_one_line(error)}\n"
                "`make prefetch task=… paths.hub_mirror=DIR` on a machine with a network brings what is missing there."
            ) from error
        before = self.origins.get(call.path)  # of another configuration
        self.origins[call.path] = mirrors.origin(folder, {**(before.get("sha256", {}) if before else {}), **hashes})
        return data_set

    def _read_hub(self, call: DatasetCall, local: Sequence[Path]) -> tuple[Any, Origin]:
        """Read a data set of the hub or its cache; of one that is a script, the hub's conversion."""
        conversion = self._conversions.find_kept(call.path, call.configuration)
        if not conversion:
            try:
                data_set = self._load(call.path, local, *call.args, **call.kwargs)
            except RuntimeError as error:
                if not conversions.is_script_error(error):
                    raise
                conversion = retry_while_busy(self._conversions.find, call.path, call.configuration)
            else:
                return data_set, origin_in_cache(*_cache_files(data_set))
        data_set = self._load("parquet", [], **call.kwargs | conversion.arguments(call.path))
        conversions.keep(call.path, call.configuration, conversion)
        return data_set, conversion.origin

    def _load(self, path: str, files: Sequence[Path], *args: Any, **kwargs: Any) -> Any:
        """Call `datasets`; what it prepares of files of this machine is kept by what changes with their content."""
        from datasets.config import HF_DATASETS_CACHE

        if files and kwargs.get("cache_dir") is None:
            for file in (file for file in files if file.suffix == ".parquet" and file not in self._checked):
                check_decoded_size(file)
                self._checked.add(file)
            listing = [(str(file), *as_on_disk(file)) for file in files]
            kwargs["cache_dir"] = str(Path(HF_DATASETS_CACHE, "directories", hash_json(listing)[:24]))
        data_set = self._original(path, *args, **kwargs)
        _check_size(path, data_set, sum(file.stat().st_size for file in files))
        return data_set


def _check_size(path: str, data_set: Any, stored_bytes: int) -> None:
    """Raise UserError if what `datasets` wrote to the disk is far larger than the files, of this machine or downloaded."""
    parts = list(data_set.values()) if isinstance(data_set, dict) else [data_set]
    for info in (part.info for part in parts[:1] if hasattr(part, "info")):
        if (info.dataset_size or 0) and (stored := stored_bytes or info.download_size):
            check_size(f"data set {path}", stored, info.dataset_size)


def _cache_files(data_set: Any) -> list[str]:
    """Return the files that `datasets` keeps of a data set, or of all of its splits."""
    parts = data_set.values() if isinstance(data_set, dict) else [data_set]
    return [file["filename"] for part in parts for file in getattr(part, "cache_files", ())]


def _in_folder(folder: str, files: Any) -> Any:
    """Return relative paths (one, a list, or lists by split) as paths in a folder; addresses and absolute paths stay."""
    if isinstance(files, dict):
        return {split: _in_folder(folder, some) for split, some in files.items()}
    if isinstance(files, str):
        return files if "://" in files else str(Path(folder, files))
    return [_in_folder(folder, file) for file in files]
