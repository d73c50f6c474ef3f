"""Data sets whose repository is a loading script: the hub's own conversion of them to parquet is read, no script is ever run.

The hub keeps it on a ref beside the branches, as `<configuration>/<split>/0000.parquet` and so on.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, write_text

log = logging.getLogger(__name__)

REF = "refs/convert/parquet"
SAID = "Dataset scripts are no longer supported"  # by `datasets` in a RuntimeError, which has no type of its own
PARTIAL = "partial-"  # before the name of a split: the first gigabytes of a large set


@dataclass(frozen=True)
class Conversion:
    """One configuration: its name as it was asked for, the commit, and the files of each split as the repository names them."""

    configuration: str
    commit: str
    splits: dict[str, list[str]]

    @property
    def there(self) -> str:
        """What the hub calls the configuration: by its name, or `default` where a conversion has only one."""
        return next(iter(self.splits.values()))[0].partition("/")[0]

    @property
    def origin(self) -> dict:
        """As `mirrors.origin` says it; and `configuration`, where the hub's is of another name."""
        renamed = {"configuration": self.there} if self.there != self.configuration else {}
        return {"commit": self.commit, "ref": REF, **renamed}

    def arguments(self, repo: str, call: Callable[..., str]) -> dict:
        """Those for `datasets.load_dataset("parquet")`: the files in the hub's cache, by split; what is not there is fetched.

        call: calls the hub's client. Files on this machine can be read without a network, a repository's of no branch cannot.
        Splits are named, since `datasets` would call a directory `eval` the split `test`.
        """
        from huggingface_hub import hf_hub_download

        bring = partial(call, hf_hub_download, repo, repo_type="dataset", revision=self.commit)
        files = {split: [bring(filename=name) for name in names] for split, names in self.splits.items()}
        return {"name": None, "revision": None, "data_files": files}

    def describe(self, repo: str, folder: Path) -> None:
        """Name the configuration's splits and files in the card of a mirror's folder, beside what that says already.

        Raises UserError where it names the same files as those of another configuration.
        """
        from huggingface_hub.repocard import metadata_load, metadata_save

        card = folder / "README.md"
        said = (metadata_load(card) if card.is_file() else None) or {}
        files = [{"split": split, "path": names} for split, names in self.splits.items()]
        mine = {"config_name": self.configuration, "data_files": files}
        others = [one for one in said.get("configs", []) if one["config_name"] != self.configuration]
        for one in others:
            if one.get("data_files") == files:
                _check_one(repo, self, one["config_name"])
        with atomic_path(card) as temporary:
            if card.is_file():
                shutil.copyfile(card, temporary)
            metadata_save(temporary, said | {"configs": [*others, mine]})


_say = cache(log.warning)  # once
_FIRST: dict[tuple[str, str], str] = {}  # the configuration that a repository's only conversion, at a commit, was read for


def keep(repo: str, configuration: str | None, conversion: Conversion) -> None:
    """Write down, beside what `datasets` keeps, what was read for a configuration; for when the hub is not to be asked."""
    file = _note(repo, configuration)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(conversion), indent=1))


def kept(repo: str, configuration: str | None) -> Conversion | None:
    """Where the hub is not to be asked, what was read of it before for a configuration; None else. Raises as `find`."""
    from huggingface_hub import constants

    file = _note(repo, configuration)
    if not constants.HF_HUB_OFFLINE or not file.is_file():
        return None
    return _told(repo, Conversion(**json.loads(file.read_text())))


def _note(repo: str, configuration: str | None) -> Path:
    from datasets.config import HF_DATASETS_CACHE

    return Path(HF_DATASETS_CACHE, "converted", f"{quote(repo, safe='')}@{quote(configuration or '', safe='')}.json")


def find(repo: str, configuration: str | None, error: RuntimeError) -> Conversion:
    """The conversion of a data set that loading refused as a script; `error`, that says so, is raised again if it does not.

    configuration: None for the only one. Raises UserError where the hub has no conversion, or only of a part of the data.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    if SAID not in str(error):
        raise error
    try:
        info = HfApi().dataset_info(repo, revision=REF)
    except RevisionNotFoundError:
        raise _refused(repo, configuration, "has no conversion of it to parquet") from None
    places = [one.rfilename.split("/") for one in info.siblings or [] if one.rfilename.endswith(".parquet")]
    names = sorted({place[0] for place in places if len(place) == 3})
    renamed = names == ["default"] or (configuration is None and len(names) == 1)  # what has one only may be called so
    there = names[0] if renamed else configuration
    configuration = configuration or there
    splits: dict[str, list[str]] = {}
    for place in sorted(places):
        if len(place) == 3 and place[0] == there:
            splits.setdefault(place[1], []).append("/".join(place))
    if not splits:
        raise _refused(repo, configuration, f"has no conversion of this configuration to parquet, only of {', '.join(names)}")
    if partial := [split for split in splits if split.startswith(PARTIAL)]:
        raise _refused(repo, configuration, f"has converted only a part of it to parquet ({', '.join(partial)})")
    return _told(repo, Conversion(configuration, info.sha, splits))


def _told(repo: str, conversion: Conversion) -> Conversion:
    """The conversion, which the log has been told of. Raises UserError for one that was read for another configuration."""
    if conversion.there != conversion.configuration:
        first = _FIRST.setdefault((repo, conversion.commit), conversion.configuration)
        if first != conversion.configuration:
            _check_one(repo, conversion, first)
        _say("data set %s: the configuration %s of its conversion is read for %s", repo, conversion.there, first)
    _say(
        "data set %s is a script, which is not run: the hub's conversion to parquet is read (%s, %s)",
        repo,
        REF,
        conversion.commit,
    )
    return conversion


def _check_one(repo: str, conversion: Conversion, other: str) -> None:
    """Raise UserError where two configurations would get the same questions; the one without a name is no other."""
    if conversion.there not in (conversion.configuration, other):
        why = f"has one conversion of it, {conversion.there}, which was taken for configuration {other} already"
        raise _refused(repo, conversion.configuration, why)


def _refused(repo: str, configuration: str | None, why: str) -> UserError:
    return UserError(
        f"data set {repo}{f', configuration {configuration}' if configuration else ''}, is a script, "
        f"{repo.rpartition('/')[2]}.py: scripts are not run, and the hub {why}. Put its splits as parquet or jsonl files into "
        f"DIR/datasets/{repo} by hand, with a README.md that names each, and give paths.hub_mirror=DIR:\n"
        f"---\nconfigs:\n- config_name: {configuration or 'default'}\n  data_files:\n  - split: …\n    path: …\n---"
    )
