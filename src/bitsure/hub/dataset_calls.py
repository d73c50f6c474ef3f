"""One call of `datasets.load_dataset`: which data set it loads, and which files that needs."""

from __future__ import annotations

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
        return self.kwargs.get("name") or (self.args[0] if self.args else None)

    @property
    def is_repository(self) -> bool:
        """Whether the path names a repository, not a format such as json nor a local folder."""
        return "/" in self.path and not Path(self.path).exists()

    def files(self, path: str) -> list[str]:
        """Return the paths or addresses of the files that the call reads.

        Args:
            path: Stands in for the call's own path, such as a mirror's folder.
        """
        import datasets

        given = {key: value for key in ("name", "data_dir", "data_files", "revision") if (value := self.kwargs.get(key))}
        builder = datasets.load_dataset_builder(path, *self.args, **given)
        return [str(file) for files in (builder.config.data_files or {}).values() for file in files]
