"""Fill a mirror on a machine with a network: `bitsure prefetch model=opt-125m task=paper paths.hub_mirror=DIR`.

It takes the settings of main.py and fetches what a run with them would read from the hub: the model, a quantized checkpoint,
the calibration text, the tasks' data sets. Files that the mirror has stay as they are, and an interrupted fetch continues.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from bitsure.base.errors import UserError
from bitsure.base.plain_text import without_controls
from bitsure.base.store import Store
from bitsure.config import schema
from bitsure.config.hydra_errors import sentence
from bitsure.config.model import ModelSettings
from bitsure.config.paths import CONF
from bitsure.config.schema import Config
from bitsure.config.sweep_overrides import expand
from bitsure.config.validation import to_dataclasses


def prefetch_main(overrides: Sequence[str]) -> None:
    """Fill a mirror for each cell that the overrides describe; exit with a message if that fails.

    Args:
        overrides: Settings as for main.py, with paths.hub_mirror.
    """
    schema.register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for cell in expand(list(overrides)):
                _fetch_cell(cell)
    except UserError as error:
        sys.exit(f"Error: {error}")
    except HydraException as error:
        sys.exit(f"Error: {sentence(error)}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Files that were fetched completely are kept; the same command continues from there.")


def _fetch_cell(overrides: list[str]) -> None:
    composed = compose("config", overrides=overrides)
    if composed.paths.hub_mirror is None:
        raise UserError("prefetch fills a mirror: add paths.hub_mirror=DIR; it is created if it does not exist.")
    mirror = Path(composed.paths.hub_mirror).absolute()
    mirror.mkdir(parents=True, exist_ok=True)
    fetch(to_dataclasses(composed), mirror)


def fetch(config: Config, mirror: Path) -> None:
    """Fetch everything that a run with this config reads from the hub.

    Raises:
        UserError: If something is not available.
    """
    from bitsure.hub.fetching import fetch_dataset_files
    from bitsure.quantize.quantizer import as_quantizer
    from bitsure.tasks import harness_tasks

    store = Store(config.paths.store)
    _fetch_model(config.model, mirror, store)
    if (checkpoint := as_quantizer(config.quant).checkpoint_settings) and checkpoint.repo is not None:
        _fetch_model(checkpoint, mirror, store)
    calib = config.calib
    if calib.kind == "text" and calib.repo is not None and calib.file is not None:
        _print(f"calibration text {calib.repo}, {calib.file}")
        fetch_dataset_files(calib.repo, [calib.file], mirror)
    text = config.text
    if text.path is None and text.repo is not None and text.file is not None:
        _print(f"text {text.repo}, {text.file}")
        fetch_dataset_files(text.repo, [text.file], mirror, ref=text.revision)
    if not config.task.names:
        return
    _print(f"data sets of {', '.join(config.task.names)}")
    harness_tasks.load_tasks(config.task, config.task.names, str(mirror), fetch=True)


def _fetch_model(model: ModelSettings, mirror: Path, store: Store) -> None:
    from bitsure.hub.fetching import fetch_file, fetch_model
    from bitsure.hub.repositories import WantedModel
    from bitsure.models.facts import check_config

    if model.repo is None:
        return
    check = partial(check_config, model)
    wanted = WantedModel(model.repo, model.revision, model.gated, model.trust_remote_code, model.server is None, check)
    _print(f"{model.file} of {wanted}" if model.file else str(wanted))
    files = fetch_file(wanted, model.file, mirror, store) if model.file else fetch_model(wanted, mirror, store)
    _print(f"  commit {files.commit or 'unknown: the files were copied, or changed, by hand'}")


def _print(line: str) -> None:
    print(without_controls(line), flush=True)
