"""Data sets whose repository is a loading script: no script is ever run, the hub's conversion to parquet is read instead.

The hub keeps the conversion on a ref beside the branches, as `<configuration>/<split>/0000.parquet` and so on.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, write_text
from bitsure.hub.offline import is_offline
from bitsure.hub.repositories import Origin

log = logging.getLogger(__name__)

REF = "refs/convert/parquet"
SCRIPT_REFUSED = "Dataset scripts are no longer supported"  # the RuntimeError of `datasets` has no type of its own
PARTIAL = "partial-"  # before the name of a split: only the first gigabytes of a large set are converted


@dataclass(frozen=True)
class Conversion:
    """The conversion of one configuration of a data set."""

    configuration: str
    """The name that was asked for."""
    commit: str
    splits: dict[str, list[str]]
    """Split → its files, as the repository names them."""

    @property
    def hub_configuration(self) -> str:
        """The hub's name of the configuration: the same, or `default` where a conversion has only one."""
        return next(iter(self.splits.values()))[0].partition("/")[0]

    @property
    def origin(self) -> Origin:
        """Where the data comes from."""
        origin: Origin = {"commit": self.commit, "ref": REF}
        if self.hub_configuration != self.configuration:
            origin["configuration"] = self.hub_configuration
        return origin

    def arguments(self, repo: str) -> dict[str, Any]:
        """Return the arguments for `datasets.load_dataset("parquet")`; files that are not in the hub's cache are downloaded.

        The files are given by their local paths: those can be read without a network, a repository's that are on no branch
        cannot. Splits are named, since `datasets` would call a directory `eval` the split `test`.
        """
        from huggingface_hub import hf_hub_download

        files = {
            split: [hf_hub_download(repo, name, repo_type="dataset", revision=self.commit) for name in names]
            for split, names in self.splits.items()
        }
        return {"name": None, "revision": None, "data_files": files}

    def describe(self, repo: str, folder: Path) -> None:
        """Add the configuration's splits and files to the card (README.md) of a mirror's folder.

        Raises:
            UserError: If the card has the same files for another configuration.
        """
        from huggingface_hub.repocard import metadata_load, metadata_save

        card = folder / "README.md"
        metadata = (metadata_load(card) if card.is_file() else None) or {}
        files = [{"split": split, "path": names} for split, names in self.splits.items()]
        own = {"config_name": self.configuration, "data_files": files}
        others = [other for other in metadata.get("configs", []) if other["config_name"] != self.configuration]
        for other in others:
            if other.get("data_files") == files:
                _check_stands_for_one(repo, self, other["config_name"])
        with atomic_path(card) as temporary:
            if card.is_file():
                shutil.copyfile(card, temporary)
            metadata_save(temporary, metadata | {"configs": [*others, own]})


class Conversions:
    """The conversions that are read while the tasks of one run are loaded; each is logged once.

    The hub's only conversion of a data set has no configuration's name. It may stand for one configuration in a run, never for
    two, whose questions would be the same: the object remembers for which one.
    """

    def __init__(self) -> None:
        self._configuration_of: dict[tuple[str, str], str] = {}  # (repository, commit) → what its only conversion stands for
        self._logged: set[tuple[str, str]] = set()

    def find(self, repo: str, configuration: str | None) -> Conversion:
        """Ask the hub for the conversion of a data set that is a script.

        Args:
            repo: The data set.
            configuration: None for the only one.

        Raises:
            UserError: If the hub has no conversion of it, only of a part of the data, or one that stands for another
                configuration already.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            info = HfApi().dataset_info(repo, revision=REF)
        except RevisionNotFoundError:
            raise _refused(repo, configuration, "has no conversion of it to parquet") from None
        assert info.sha is not None
        places = [file.rfilename.split("/") for file in info.siblings or [] if file.rfilename.endswith(".parquet")]
        names = sorted({place[0] for place in places if len(place) == 3})
        only = names == ["default"] or (configuration is None and len(names) == 1)
        hub_configuration = names[0] if only else configuration
        splits: dict[str, list[str]] = {}
        for place in sorted(places):
            if len(place) == 3 and place[0] == hub_configuration:
                splits.setdefault(place[1], []).append("/".join(place))
        configuration = configuration or hub_configuration
        if configuration is None or not splits:
            why = f"has no conversion of this configuration to parquet, only of {', '.join(names)}"
            raise _refused(repo, configuration, why)
        if partial := [split for split in splits if split.startswith(PARTIAL)]:
            raise _refused(repo, configuration, f"has converted only a part of it to parquet ({', '.join(partial)})")
        return self._register(repo, Conversion(configuration, info.sha, splits))

    def find_kept(self, repo: str, configuration: str | None) -> Conversion | None:
        """Return the conversion that an earlier run read, if the hub may not be asked now; None otherwise.

        Raises:
            UserError: If it stands for another configuration already.
        """
        file = _note(repo, configuration)
        if not is_offline() or not file.is_file():
            return None
        return self._register(repo, Conversion(**json.loads(file.read_text(encoding="utf-8"))))

    def _register(self, repo: str, conversion: Conversion) -> Conversion:
        key, hub_configuration = (repo, conversion.commit), conversion.hub_configuration
        if hub_configuration != conversion.configuration:
            _check_stands_for_one(repo, conversion, self._configuration_of.get(key, conversion.configuration))
            if key not in self._configuration_of:
                message = "data set %s: the configuration %s of its conversion is read for %s"
                log.warning(message, repo, hub_configuration, conversion.configuration)
            self._configuration_of[key] = conversion.configuration
        if key not in self._logged:
            message = "data set %s is a script, which is not run: the hub's conversion to parquet is read (%s, %s)"
            log.warning(message, repo, REF, conversion.commit)
            self._logged.add(key)
        return conversion


def is_script_error(error: Exception) -> bool:
    """Return whether `datasets` refused a data set because it is a loading script."""
    return isinstance(error, RuntimeError) and SCRIPT_REFUSED in str(error)


def keep(repo: str, configuration: str | None, conversion: Conversion) -> None:
    """Record, in the cache of `datasets`, the conversion that was read, for when the hub may not be asked."""
    file = _note(repo, configuration)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(conversion), indent=1))


def _note(repo: str, configuration: str | None) -> Path:
    from datasets.config import HF_DATASETS_CACHE

    return Path(HF_DATASETS_CACHE, "converted", f"{quote(repo, safe='')}@{quote(configuration or '', safe='')}.json")


def _check_stands_for_one(repo: str, conversion: Conversion, first: str) -> None:
    """Raise UserError if a conversion already stands for another configuration; one without a name is no other."""
    renamed = conversion.hub_configuration != conversion.configuration
    if renamed and first not in (conversion.configuration, conversion.hub_configuration):
        why = f"has one conversion of it, {conversion.hub_configuration}, which stands for configuration {first} already"
        raise _refused(repo, conversion.configuration, why)


def _refused(repo: str, configuration: str | None, why: str) -> UserError:
    return UserError(
        f"data set {repo}{f', configuration {configuration}' if configuration else ''}, is a script, "
        f"{repo.rpartition('/')[2]}.py: scripts are not run, and the hub {why}. Put its splits as parquet or jsonl files into "
        f"DIR/datasets/{repo} by hand, with a README.md that names each, and give paths.hub_mirror=DIR:\n"
        f"---\nconfigs:\n- config_name: {configuration or 'default'}\n  data_files:\n  - split: …\n    path: …\n---"
    )
