"""bitsure's command line: compose a config, check it, run the story. See README.md."""

import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bitsure.base.errors import UserError
from bitsure.config import schema
from bitsure.config import validation as settings

schema.register()
# threads that wait by spinning make a run ten times slower on a machine with other work, threads that sleep at once twice as
# slow in small operations: they spin for microseconds. Read when torch is loaded
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    try:
        settings.check_choices(hydra_config.overrides.task)
        config = settings.to_dataclasses(composed, hydra_config.runtime.choices)
        # heavy imports only where a run begins: --help stays quick
        if config.plan:
            from bitsure.sweep.launch import dry_run as plan
            from bitsure.sweep.launch.composing import Composed

            plan.show([Composed(0, [], run_dir, config)])
        elif hydra_config.mode.name == "MULTIRUN":
            from bitsure.sweep.launch import cell_process as cells

            logs = OmegaConf.to_container(hydra_config.job_logging, resolve=True)
            cells.run(config, run_dir, Path(hydra_config.sweep.dir).name, logs)
        else:
            from bitsure.run import pipeline

            pipeline.run(config, run_dir)
    except UserError as error:
        sys.exit(f"\nError: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted. What was finished is in the store; the same command goes on from there.", file=sys.stderr)
        if hydra_config.mode.name == "MULTIRUN":
            print(f"What there is: python -m bitsure.report {hydra_config.sweep.dir}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
