"""bitsure's command line: compose a config, check it, run the story. See README.md."""

import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bitsure import config as schema
from bitsure.errors import UserError

schema.register()
# threads that wait by spinning make a run ten times slower on a machine with other work; read when torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> None:
    from bitsure import pipeline  # heavy imports only where a run begins: --help stays quick

    hydra_config = HydraConfig.get()
    sweep = Path(hydra_config.sweep.dir).name if hydra_config.mode.name == "MULTIRUN" else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    try:
        pipeline.run(schema.to_dataclasses(composed), Path(hydra_config.runtime.output_dir), sweep)
    except UserError as error:
        if sweep is not None:  # the launcher lets the other cells finish and reports this one
            raise
        sys.exit(f"\nError: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted. What was finished is in the store; the same command goes on from there.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
