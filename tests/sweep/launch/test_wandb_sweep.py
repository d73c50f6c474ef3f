"""A file of sweeps/ as a sweep of W&B's agents."""

from __future__ import annotations

import pytest
import yaml

from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from bitsure.sweep.launch.wandb_sweep import wandb_sweep
from tests.builders.sweep_commands import compose_valid

SWEEPS = sorted((PROJECT / "sweeps").glob("*.yaml"))


def test_a_wandb_sweep_has_the_options_the_values_and_a_directory_for_each_agents_run():
    text = wandb_sweep(PROJECT / "sweeps" / "paper.yaml")
    assert text.startswith("# Made from ") and yaml.safe_load(text) == {
        "program": "main.py",
        "project": "bitsure",
        "name": "paper",
        "method": "grid",
        "command": [
            "${env}",
            "${interpreter}",
            "${program}",
            "${args_no_hyphens}",
            "metric=paper_compat",
            "tracking.mode=online",
            "tracking.group=paper",
            "hydra.run.dir=outputs/paper/${oc.env:WANDB_RUN_ID}",
        ],
        "parameters": {
            "model": {
                "values": [
                    *("opt-125m", "opt-350m", "opt-1.3b", "opt-2.7b", "opt-6.7b", "opt-13b"),
                    *("bloom-560m", "bloom-1b1", "bloom-1b7", "bloom-3b", "bloom-7b1", "llama-7b", "mistral-7b-v0.1"),
                ]
            },
            "quant": {"values": ["none", "gptq4"]},
            "task": {"values": ["paper"]},
            "calib": {"values": ["c4"]},
        },
    }
    numbers = yaml.safe_load(wandb_sweep(PROJECT / "sweeps" / "calib_data.yaml"))["parameters"]
    assert numbers["calib.nsamples"] == {"values": [8, 32, 128]}


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_wandb_sweep_names_the_same_cells_as_its_file(path):
    sweep = yaml.safe_load(wandb_sweep(path))
    values = [f"{key}={','.join(map(str, one['values']))}" for key, one in sweep["parameters"].items()]
    options = [part for part in sweep["command"] if "=" in part and not part.startswith(("tracking.", "hydra."))]
    cells = compose_valid(*values, *options)
    assert [cell.config for cell in cells] == [cell.config for cell in compose_valid(name=path.stem)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file of a sweep"),
        ("a: 1", "needs defaults and hydra.sweeper.params"),
        ("defaults: [config]\nhydra: {sweeper: {params: {model: a}}}\ntask: {limit: 3}", "task would be lost"),
    ],
)
def test_what_cannot_be_turned_into_a_wandb_sweep_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        wandb_sweep(path)
