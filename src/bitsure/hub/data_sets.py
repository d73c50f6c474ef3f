"""Data sets as `datasets` reads them: from a mirror directory that has them, else from its cache, else from the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitsure.base.errors import UserError
from bitsure.hub import conversions, mirrors
from bitsure.hub import files as hub
from bitsure.hub.failures import explained

Load = Callable[..., Any]  # as `datasets.load_dataset`


@contextmanager
def datasets_from(mirror: str | None, own_files: str | None) -> Iterator[dict[str, dict]]:
    """Within the block, `datasets.load_dataset` reads a repository from the mirror where that has it.

    Relative `data_files` of one's own tasks are found in `own_files`, the folder of their YAML, wherever the run starts.
    Yields where each repository that is read comes from, as `mirrors.origin` says it; it is filled as they are read.
    """
    import datasets

    original, origins = datasets.load_dataset, {}

    def load_dataset(path: str, *args, **kwargs):
        if own_files and kwargs.get("data_files"):
            kwargs["data_files"] = _beside(own_files, kwargs["data_files"])
        configuration = configuration_of(args, kwargs)
        what = f"data set {path}" + (f", configuration {configuration}" if configuration else "")
        if mirror and Path(mirror, "datasets", path).is_dir():
            before = origins.get(path, {}).get("sha256", {})  # of other configurations
            found, origins[path] = _from_mirror(original, what, mirror, path, before, args, kwargs)
            return found
        with explained(what, mirror, f"datasets/{path}"):
            found, origin = _from_hub(original, path, configuration, args, kwargs)
        if "/" in path and not Path(path).exists():  # a repository, not json and the like, nor a folder of one's own
            origins[path] = origin
        return found

    datasets.load_dataset = load_dataset
    try:
        yield origins
    finally:
        datasets.load_dataset = original


def _from_mirror(load: Load, what: str, mirror: str, path: str, before: dict, args: tuple, kwargs: dict) -> tuple[Any, dict]:
    """A data set and its origin; before: the hashes of what else was read of it. Raises UserError if it cannot be read."""
    folder = Path(mirror, "datasets", path)
    try:
        found = load(str(folder), *args, **kwargs)
        names = [os.path.relpath(file, folder.resolve()) for file in data_files(str(folder), *args, **kwargs)]
        return found, mirrors.origin(folder, before | mirrors.hashes(mirror, path, names))
    except UserError:  # of what was to be brought there, or of what is noted of it
        raise
    except Exception as error:
        raise UserError(
            f"{what} cannot be read from the mirror's {folder}: {type(error).__name__}: {str(error)[:300]}\n"
            "`make prefetch task=… paths.hub_mirror=DIR` on a machine with a network brings what is missing there."
        ) from error


def _from_hub(load: Load, path: str, configuration: str | None, args: tuple, kwargs: dict) -> tuple[Any, dict]:
    """A data set and its origin; of one that is a script, what the hub has made of it."""
    converted = conversions.kept(path, configuration)
    if not converted:
        try:
            found = load(path, *args, **kwargs)
        except RuntimeError as error:
            converted = hub.patiently(conversions.find, path, configuration, error)
        else:
            return found, hub.by_its_folder(*_prepared(found))
    found = load("parquet", **kwargs | converted.arguments(path, hub.patiently))
    conversions.keep(path, configuration, converted)
    return found, converted.origin


def configuration_of(args: tuple, kwargs: dict) -> str | None:
    """The configuration that `datasets.load_dataset` is asked for, with these arguments after the path."""
    return kwargs.get("name") or (args[0] if args else None)


def data_files(path: str, *args, **kwargs) -> list[str]:
    """Paths or addresses of the files that `datasets.load_dataset` reads with the same arguments."""
    import datasets

    given = {key: kwargs[key] for key in ("name", "data_dir", "data_files", "revision") if kwargs.get(key) is not None}
    builder = datasets.load_dataset_builder(path, *args, **given)
    return [file for files in (builder.config.data_files or {}).values() for file in files]


def _prepared(found: Any) -> list[str]:
    """The files that `datasets` keeps of a data set, or of all of its splits."""
    parts = found.values() if isinstance(found, dict) else [found]
    return [file["filename"] for part in parts for file in getattr(part, "cache_files", ())]


def _beside(folder: str, files: str | list | dict) -> str | list | dict:
    """Relative paths as paths in a folder; addresses and absolute paths stay."""
    if isinstance(files, dict):
        return {split: _beside(folder, some) for split, some in files.items()}
    if isinstance(files, str):
        return files if "://" in files else str(Path(folder, files))
    return [_beside(folder, some) for some in files]
