"""Which files a task read when it was loaded, kept in the store, so that later runs know its data without loading it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from bitsure.base.files import files_at, write_text
from bitsure.base.store import Store
from bitsure.base.versions import installed_version
from bitsure.scoring.question_source import QuestionSource

KIND = "task_files"  # of the store's entries
LIST, WRITTEN = "places.json", "written.json"

Contents = list[tuple[str, str | None]]
"""Each file's name and SHA-256, which is None for a file or folder that is not there."""


class TaskFiles:
    """The files that the tasks of a run read, by their content.

    Args:
        questions: The tasks.
        store: Where the lists are kept, and the hashes of files that have not changed.
    """

    def __init__(self, questions: QuestionSource, store: Store) -> None:
        self._questions, self._store = questions, store
        self._contents: dict[str, Contents | None] = {}  # a run goes by what it read first
        self._writes: dict[str, bool] = {}
        self._places: dict[str, list[str]] = {}  # SHA-256 → the files of it, by their paths and where links lead

    def contents(self, name: str) -> Contents | None:
        """Return what the files hold that a task read when it was last loaded; None if it never was."""
        if name not in self._contents:
            entry = self._store.find(KIND, self._made_from(name), to_read=True)
            self._contents[name] = self._read(json.loads((entry / LIST).read_text(encoding="utf-8"))) if entry else None
        return self._contents[name]

    def has_written_answers(self, name: str) -> bool:
        """Return whether a model writes the answers of a task; also true where that is not known yet."""
        if name not in self._writes:
            entry = self._store.find(KIND, self._made_from(name), to_read=True)
            kept = entry is not None and (entry / WRITTEN).is_file()
            self._writes[name] = json.loads((entry / WRITTEN).read_text(encoding="utf-8")) if entry and kept else True
        return self._writes[name]

    def record(self, name: str, places: Sequence[str], has_written_answers: bool) -> None:
        """Keep which files, folders and patterns a task read, now that it is loaded, and whether its answers are written."""
        made_from = self._made_from(name)
        contents = {LIST: json.dumps(list(places), indent=1), WRITTEN: json.dumps(has_written_answers)}
        with self._store.lock(KIND, made_from):
            entry = self._store.find(KIND, made_from, to_read=True)
            files = [] if entry is None else [entry / file for file in contents]
            kept = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
            if kept != list(contents.values()):
                self._store.remove(KIND, made_from)
                with self._store.create(KIND, made_from) as unfinished:
                    for file, content in contents.items():
                        write_text(unfinished / file, content)
        self._contents[name], self._writes[name] = self._read(places), has_written_answers

    def place_of(self, content: str, recorded: str) -> str:
        """Return where a file of a SHA-256 is that a task of this run reads; where it was when it was recorded, if none is."""
        places = self._places.get(content, [])
        return recorded if recorded in places or not places else places[0]

    def _made_from(self, name: str) -> dict[str, object]:
        """Return what decides where a task's files are."""
        task, mirror = self._questions.task, self._questions.hub_mirror
        folders = [os.path.abspath(folder) if folder else None for folder in (task.include_path, mirror)]
        folders.append(os.getcwd())  # a task may name data relative to it
        libraries = {library: installed_version(library) for library in ("lm_eval", "datasets")}
        return {"task": name, "own_tasks": self._questions.own_tasks, "folders": folders, "libraries": libraries}

    def _read(self, places: Sequence[str]) -> Contents:
        contents: Contents = []
        for place in map(Path, places):
            files = files_at(place)
            names = [os.path.relpath(file, place) if place.is_dir() else file.name for file in files]
            hashes = self._store.hashes(files) if files else []
            for file, content in zip(files, hashes, strict=True):
                self._places.setdefault(content, []).extend([str(file.absolute()), str(file.resolve())])
            contents += zip(names, hashes, strict=True) if files else [(place.name, None)]
        return contents
