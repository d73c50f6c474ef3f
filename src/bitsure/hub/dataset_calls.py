"""One call of `datasets.load_dataset`: which data set it loads, and which files that needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DatasetCall:
    """The arguments of one call of `datasets.load_dataset`."""

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        return f"data set {self.path}" + (f", configuration {self.configuration}" if self.configuration else "")

    @property
    def configuration(self) -> str | None:
        """The configuration that is asked for; None for the only one."""
        name: str | None = self._argument("name", 0)
        return name

    @property
    def is_repository(self) -> bool:
        """Whether the path names a repository, not a format such as json nor a local folder."""
        from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

        return self.path not in _PACKAGED_DATASETS_MODULES and not Path(self.path).exists()

    @property
    def local_places(self) -> list[Path]:
        """The files, folders and patterns of this machine that are read; of a repository, those by an absolute path alone."""
        named = [name for name in _strings(self._argument("data_files", 2)) if "://" not in name]
        if self.is_repository:
            return [Path(name) for name in named if Path(name).is_absolute()]
        folder = Path(self.path)
        if folder.is_dir():
            return [folder, *(folder / name for name in named)]
        data_dir = self._argument("data_dir", 1)
        return [Path(name) for name in (*named, *([data_dir] if data_dir else []))]

    def files(self, path: str) -> list[str]:
        """Return the paths or addresses of the files that the call reads.

        Args:
            path: Stands in for the call's own path, such as a mirror's folder.
        """
        import datasets

        given = {key: value for key in ("name", "data_dir", "data_files", "revision") if (value := self.kwargs.get(key))}
        builder = datasets.load_dataset_builder(path, *self.args, **given)
        return [str(file) for files in (builder.config.data_files or {}).values() for file in files]

    def _argument(self, name: str, position: int) -> Any:
        """Return an argument that is given by name or by its position after the path; None where it is not given."""
        return self.kwargs.get(name) or next(iter(self.args[position : position + 1]), None)


def _strings(files: Any) -> Iterator[str]:
    """Yield the names in `data_files`: one, a list, or either by split."""
    if isinstance(files, str | Path):
        yield str(files)
    elif files:
        for part in files.values() if isinstance(files, dict) else files:
            yield from _strings(part)
