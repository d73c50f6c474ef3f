"""The command that scores a recipe can be pasted, with the run's own model and settings."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from bitsure.report.recipe_command import recipe_command


def test_the_quantizer_gives_way_to_the_recipe_and_the_rest_stays():
    own = ["quant=rtn3", "quant.group_size=32", "++quant.sym=true", "attribution.measure=true", "hydra.run.dir=run"]
    kept = ["--config-dir", "my conf", "model=local", "model.path=a b", "task.limit=20"]
    line = recipe_command(["main.py", *kept, *own], "rtn3", Path("/runs/1/recipe.yaml"))
    assert shlex.split(line) == [
        *("python", "main.py", *kept, "quant=mixed", "quant@quant.like=rtn3", "quant.recipe=/runs/1/recipe.yaml"),
        *("quant.like.group_size=32", "++quant.like.sym=true"),
    ]


@pytest.mark.parametrize("folder", ["/runs/lr=3, it's (1)", "/runs/a,b", "/ru\\'n$s"])
def test_hydra_reads_the_path_whatever_it_holds(folder):
    line = recipe_command(["main.py"], "gptq3", Path(folder, "recipe.yaml"))
    [override] = OverridesParser.create().parse_overrides([shlex.split(line)[-1]])
    assert override.value() == f"{folder}/recipe.yaml"


def test_a_sweeps_command_and_another_programs_are_no_commands_of_one_run():
    for command in (["main.py", "-m", "quant=rtn3,rtn4"], ["notebook.py", "quant=rtn3"]):
        assert recipe_command(command, "rtn3", Path("recipe.yaml")) is None
    assert recipe_command(["main.py"], None, Path("recipe.yaml")) is None
