"""bitsure's command line: compose the settings, check them, run. See README.md."""

import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bitsure.base import terminal
from bitsure.base.errors import UserError
from bitsure.base.files import check_file_names
from bitsure.config import help_text, hydra_errors, own_code, schema
from bitsure.config.command_line import as_hydra_reads
from bitsure.config.extras import run_extra
from bitsure.config.labels import other_settings, quantizer_label
from bitsure.config.model import check_there
from bitsure.config.schema import Config
from bitsure.config.validation import check_choices, to_dataclasses

schema.register()
help_text.register()
# Threads that wait by spinning make a run ten times slower on a machine with other work. Threads that sleep at once make small
# operations twice as slow. Let them spin for microseconds. torch reads this when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# torchao, where transformers finds it, calls a function that torch is about to withdraw: nothing for a user to act on.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run what Hydra composed: one run, or one cell of a sweep."""
    _prepare_process()  # a launcher's worker process comes here first
    hydra_errors.settings_are_composed()
    try:
        own_code.make_importable(HydraConfig.get().runtime.config_sources)
        check_choices(_overrides())
        with run_extra("main.py"):
            _run(to_dataclasses(composed, HydraConfig.get().runtime.choices), _sweep_dir())
    except UserError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        _end_interrupted()


def _prepare_process() -> None:
    """Protect the terminal, and let a scheduler's stop end the process as Ctrl-C does."""
    terminal.protect()
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _run(config: Config, sweep_dir: str | None) -> None:
    """Run a checked config. Heavy imports are made here, so that --help and a wrong path are quick."""
    check_there(config.model)
    from bitsure.results import Labels

    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    preset, overrides = hydra_config.runtime.choices["quant"], _overrides()
    labels = Labels(
        model=str(config.model.name),
        quantizer=quantizer_label(config.quant.name, preset, overrides),
        preset=preset,
        settings=other_settings(overrides),
    )
    if config.plan:
        from bitsure.sweep.launch import composed_cell, printed_plan

        printed_plan.show([composed_cell.ComposedCell(0, [], run_dir, config, labels)], composed_cell.CellErrors())
    elif sweep_dir:
        from bitsure.sweep.launch import cell_line, cell_process

        job_logging: Any = OmegaConf.to_container(hydra_config.job_logging, resolve=True)
        cell_process.run(config, run_dir, cell_line.cell_line(run_dir, Path(sweep_dir), labels), job_logging)
    else:
        from bitsure.run import pipeline

        pipeline.run(config, run_dir, labels=labels)


def _sweep_dir() -> str | None:
    """Return the directory of the sweep that the command runs, if it runs one."""
    return HydraConfig.get().sweep.dir if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN else None


def _end_interrupted() -> NoReturn:
    """End a command that Ctrl-C, or a scheduler's stop, has interrupted."""
    print("\nInterrupted. Finished work is in the store; the same command continues from there.", file=sys.stderr)
    if sweep_dir := _sweep_dir():
        print(f"A report of what is finished: bitsure report {shlex.quote(sweep_dir)}", file=sys.stderr)
    sys.exit(130)


def _overrides() -> list[str]:
    """Return the command's overrides as they were given; those of OmegaConf's list have what their `${…}` stands for."""
    given: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)
    return list(given)


if __name__ == "__main__":
    _prepare_process()
    try:
        check_file_names([os.getcwd(), *sys.argv[1:], os.environ.get("BITSURE_STORE", "")])
        check_choices(sys.argv[1:])
    except UserError as error:
        sys.exit(f"Error: {error}")
    sys.argv[1:] = map(as_hydra_reads, sys.argv[1:])
    try:
        with hydra_errors.sentences():
            main()
    except KeyboardInterrupt:  # while cells are composed and checked, and between them
        _end_interrupted()
