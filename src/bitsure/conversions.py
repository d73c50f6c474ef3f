"""Data sets whose repository is a loading script: the hub's own conversion of them to parquet is read, no script is ever run.

The hub keeps it on a ref beside the branches, as `<configuration>/<split>/0000.parquet` and so on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bitsure.errors import UserError

log = logging.getLogger(__name__)

REF = "refs/convert/parquet"
SAID = "Dataset scripts are no longer supported"  # by `datasets` in a RuntimeError, which has no type of its own
PARTIAL = "partial-"  # before the name of a split: the first gigabytes of a large set


@dataclass(frozen=True)
class Conversion:
    """One configuration: its name, the commit, and the files of each split as the repository names them."""

    configuration: str
    commit: str
    splits: dict[str, list[str]]

    def arguments(self, given: dict) -> dict:
        """Those for `datasets.load_dataset`, instead of the given ones.

        Splits are named, since `datasets` would call a directory `eval` the split `test`; and what it prepares is kept apart:
        where it finds a repository of this name prepared, it takes that instead of saying that it is a script.
        """
        from datasets.config import HF_DATASETS_CACHE

        kept = {key: value for key, value in given.items() if key != "name"}
        apart = str(Path(HF_DATASETS_CACHE, "converted"))
        return kept | {"data_files": self.splits, "revision": self.commit, "cache_dir": apart}

    def describe(self, folder: Path) -> None:
        """Name the configuration's splits and files in the card of a mirror's folder, beside what that says already."""
        from huggingface_hub.repocard import metadata_load, metadata_save

        card = folder / "README.md"
        said = (metadata_load(card) if card.is_file() else None) or {}
        files = [{"split": split, "path": names} for split, names in self.splits.items()]
        mine = {"config_name": self.configuration, "data_files": files}
        others = [one for one in said.get("configs", []) if one["config_name"] != self.configuration]
        metadata_save(card, said | {"configs": [*others, mine]})


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
    _say(repo, info.sha)
    return Conversion(configuration, info.sha, splits)


@cache
def _say(repo: str, commit: str) -> None:
    log.warning(
        "data set %s is a script, which is not run: the hub's conversion to parquet is read (%s, %s)", repo, REF, commit
    )


def _refused(repo: str, configuration: str | None, why: str) -> UserError:
    return UserError(
        f"data set {repo}{f', configuration {configuration}' if configuration else ''}, is a script, "
        f"{repo.rpartition('/')[2]}.py: scripts are not run, and the hub {why}. Put its splits as parquet or jsonl files into "
        f"DIR/datasets/{repo} by hand, with a README.md that names each, and give paths.hub_mirror=DIR:\n"
        f"---\nconfigs:\n- config_name: {configuration or 'default'}\n  data_files:\n  - split: …\n    path: …\n---"
    )
