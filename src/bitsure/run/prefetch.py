"""Fill a mirror from a machine with a network: `make prefetch model=opt-125m task=paper paths.hub_mirror=DIR`.

It takes the settings of main.py and fetches what a run with them would read from the hub: the model, a quantized checkpoint,
the calibration text, the tasks' data sets. What is in the mirror already stays as it is, and a fetch that broke off goes on.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bitsure.base.errors import UserError
from bitsure.base.store import Store
from bitsure.config import schema
from bitsure.config import validation as settings
from bitsure.config.model import ModelSettings
from bitsure.config.paths import CONF
from bitsure.config.schema import Config

schema.register()


def fetch(config: Config, mirror: Path) -> None:
    """Everything that a run of this config reads from the hub. Raises UserError for what cannot be had."""
    from bitsure.hub import files as hub
    from bitsure.quantize.checkpoint import prequantized
    from bitsure.tasks import harness_tasks

    store = Store(config.paths.store)
    _fetch_model(config.model, mirror, store)
    if (checkpoint := prequantized.named(config.quant)) and checkpoint.repo is not None:
        _fetch_model(ModelSettings(repo=checkpoint.repo, revision=checkpoint.revision), mirror, store)
    if config.calib.kind == "text" and config.calib.repo is not None:
        _say(f"calibration text {config.calib.repo}, {config.calib.file}")
        hub.fetch_dataset_files(config.calib.repo, [config.calib.file], None, mirror)
    _say(f"data sets of {', '.join(config.task.names)}")
    with _datasets_into(mirror):
        harness_tasks.load_tasks(config.task, config.task.names, str(mirror))


def _fetch_model(model: ModelSettings, mirror: Path, store: Store) -> None:
    from bitsure.hub import files as hub
    from bitsure.models import facts as model_facts

    if model.repo is None:
        return
    _say(f"model {model.repo} at revision {model.revision}")
    check = partial(model_facts.check_config, model)
    found = hub.fetch_model(model.repo, model.revision, mirror, model.gated, model.trust_remote_code, check, store)
    _say(f"  commit {found.commit or 'unknown: it was put there, or changed there, by hand'}")


@contextmanager
def _datasets_into(mirror: Path) -> Iterator[None]:
    """Within the block, `datasets.load_dataset` first fetches a hub repository's files of the configuration into the mirror."""
    import datasets

    original = datasets.load_dataset

    def load_dataset(path: str, *args, **kwargs):
        folder = mirror / "datasets"
        repo = str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path
        if "/" not in repo or Path(repo).exists():  # json and the like, whose files are given; a folder of one's own
            return original(path, *args, **kwargs)
        _fetch_data(repo, args, kwargs, mirror)
        return original(str(folder / repo), *args, **{key: value for key, value in kwargs.items() if key != "revision"})

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = original


def _fetch_data(repo: str, args: tuple, kwargs: dict, mirror: Path) -> None:
    """The files of a data set's configuration, with its card; of a script, those of its conversion and a card for them."""
    from huggingface_hub import HfFileSystem

    from bitsure.hub import conversions, mirrors
    from bitsure.hub import data_sets as hub_data
    from bitsure.hub import files as hub
    from bitsure.hub.failures import explained

    with explained(f"data set {repo}", None, f"datasets/{repo}"):
        hub.check_reachable()
        try:
            addresses = hub.patiently(hub_data.data_files, repo, *args, **kwargs)
        except RuntimeError as error:
            found = hub.patiently(conversions.find, repo, hub_data.configuration_of(args, kwargs), error)
            files = [name for names in found.splits.values() for name in names]
            hub.fetch_dataset_files(repo, files, found.commit, mirror, conversions.REF)
            with mirrors.lock(mirror, "datasets", repo):
                return found.describe(repo, mirror / "datasets" / repo)
    places = [HfFileSystem().resolve_path(address) for address in addresses]
    files = ["README.md", *sorted({place.path_in_repo for place in places})]
    hub.fetch_dataset_files(repo, files, places[0].revision, mirror)
    return None


def _say(line: str) -> None:
    print(line, flush=True)


def cells(overrides: list[str]) -> Iterator[list[str]]:
    """A sweep's overrides, such as model=opt-125m,opt-1.3b, as those of its cells."""
    choices = []
    for override in OverridesParser.create().parse_overrides(overrides):
        sweep = override.is_sweep_override()
        key = override.get_key_element()
        choices.append([f"{key}={one}" for one in override.sweep_string_iterator()] if sweep else [override.input_line])
    yield from map(list, itertools.product(*choices))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bitsure.prefetch", description=__doc__)
    parser.add_argument("overrides", nargs="+", metavar="key=value", help="settings as for main.py; paths.hub_mirror=DIR")
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for cell in cells(parser.parse_args(arguments).overrides):
                composed = compose("config", overrides=cell)
                if composed.paths.hub_mirror is None:
                    raise UserError("prefetch fills a mirror: add paths.hub_mirror=DIR; it is made if it is not there.")
                Path(composed.paths.hub_mirror).mkdir(parents=True, exist_ok=True)
                config = settings.to_dataclasses(composed)
                fetch(config, Path(config.paths.hub_mirror).absolute())
    except (UserError, HydraException) as error:
        sys.exit(f"\nError: {error}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. What was fetched whole is kept; the same command goes on from there.")


if __name__ == "__main__":
    main()
