"""The cells that a sweep's command names: as Hydra composes them, quickly, and everything that is wrong with them at once."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict, read_write

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.config import schema
from bitsure.config import validation as settings
from bitsure.config.paths import CONF, PROJECT
from bitsure.sweep.launch import composing
from bitsure.sweep.launch import dry_run as plan

schema.register()
SWEEPS = sorted((PROJECT / "sweeps").glob("*.yaml"))
WANDB = sorted((PROJECT / "sweeps" / "wandb").glob("*.yaml"))


@contextmanager
def command(*overrides: str, name: str = "config"):
    """The sweep's config for a command line with `--config-dir sweeps --config-name name`, and what composes its cells."""
    places = create_config_search_path(str(CONF))
    places.prepend("command-line", f"file://{PROJECT / 'sweeps'}", SearchPathQuery(provider="schema"))
    Hydra.create_main_hydra2("main", places)
    try:
        loader = GlobalHydra.instance().config_loader()
        yield loader.load_configuration(name, list(overrides), run_mode=RunMode.MULTIRUN), loader
    finally:
        GlobalHydra.instance().clear()


def composed(*overrides: str, name: str = "config") -> list[composing.Composed]:
    with command(*overrides, name=name) as (master, loader):
        return composing.cells(master, loader)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=pocket-300k,pocket-1m", "quant=rtn3", "quant.group_size=32,64", "task.limit=5"],
        ["model=opt-125m", "calib=pile", "calib.seed=0,1", "hydra.sweep.subdir=${hydra:job.override_dirname}"],
        ["model=pocket-1m", "quant@quant.like=rtn3", "quant=noise", "quant.seed=1,2", "~control"],
        ["model=local", "model.path=/a,/b", "hydra.sweep.subdir=${hydra:job.num}-${model.path}"],
    ],
)
def test_cells_are_those_that_hydra_would_launch(overrides):
    with command(*overrides) as (master, loader):
        cells = composing.cells(master, loader)
        assert [cell.number for cell in cells] == list(range(len(cells))) and len(cells) > 1
        for cell in cells:
            expected = loader.load_sweep_config(master, cell.overrides)
            with read_write(expected), open_dict(expected):
                expected.hydra.job.num = cell.number
                HydraConfig.instance().set_config(expected)
                directory = Path(expected.hydra.sweep.dir, expected.hydra.sweep.subdir)
                del expected["hydra"]
            if not cell.errors:
                assert cell.directory == directory and cell.config == settings.to_dataclasses(expected)
            else:
                with pytest.raises(UserError):
                    settings.to_dataclasses(expected)


def test_everything_that_is_wrong_is_said_at_once_and_once():
    cells = composed("model=pocket-1m,pocket-2m", "quant=rtn3,rtn4", "quant.bits=3,9", "calib.sed=1,2")
    errors = composing.errors(cells)
    assert all(cell.config is None for cell in cells)
    [unknown] = [error for error in errors if "model=pocket-2m: no such option. Was pocket-" in error]
    assert unknown.startswith("8 cells (8, 9,")
    assert any("calib.sed" in error for error in errors)
    errors = composing.errors(composed("model=pocket-1m", "quant=rtn3", "quant.bits=3,9", "task.limit=0,1"))
    assert [error.split(":")[0] for error in errors] == ["2 cells (0, 2)", "2 cells (2, 3)"]
    assert "task.limit=0" in errors[0] and "quant.bits=9" in errors[1]


def test_settings_that_do_not_exist_or_are_of_another_kind_are_all_named():
    wrong = ["calib.sed=1,2", "quant.bit=4,5", "quant.group_size=wide,128", "modle=pocket-1m,pocket-4m"]
    errors = composing.errors(composed("quant=rtn3", *wrong))
    assert [error.split(" (")[0] for error in errors] == ["16 cells", "16 cells", "8 cells", "16 cells"]
    said = "\n".join(errors)
    assert "calib.sed: no such setting of calib=pocket. Did you mean seed? There are calib.name, calib.kind," in said
    assert "quant.bit: no such setting of quant=rtn3. Did you mean bits?" in said
    assert "modle: no such setting. Did you mean model?" in said
    assert "quant.group_size=wide: Value 'wide' of type 'str' could not be converted to Integer" in said


def test_unknown_options_are_all_named_with_the_nearest():
    found = composing.errors(composed("model=pocket-1m,opt-125", "quant=gptq5,rtn9"))
    starts = ("2 cells (0, 2): quant=gptq5: ", "2 cells (1, 3): quant=rtn9: ", "2 cells (2, 3): model=opt-125: ")
    assert len(found) == 3 and all(any(error.startswith(start) for error in found) for start in starts)
    assert all("There are awq, awq2" in error and "Was gptq" in error for error in found if "gptq5" in error)
    assert any("opt-125: no such option. Was opt-125m or" in error for error in found)


def test_two_cells_that_would_write_to_one_directory_are_named():
    cells = composed("model=pocket-1m", "quant=rtn3", "quant.bits=3,4", "hydra.sweep.subdir=${model.name}")
    [error] = composing.errors(cells)
    assert error.startswith("2 cells (0, 1)") and "pocket-1m" in error and "hydra.sweep.subdir" in error


def test_cells_that_are_the_same_are_named():
    cells = composed("quant=rtn3,rtn4,rtn3", "calib.seed=0,1", "hydra.sweep.subdir=${quant.bits}-${calib.seed}")
    errors = composing.errors(cells)
    assert [error.partition(":")[0] for error in errors] == ["2 cells (0, 4)", "2 cells (1, 5)"]
    assert "have the same settings (quant=rtn3 calib.seed=0): what is named twice" in errors[0]
    [error] = composing.errors(composed("quant=rtn3,rtn4", "quant.bits=4", "sweep.time_limit=9"))
    assert "(quant=rtn3 quant.bits=4 sweep.time_limit=9 and quant=rtn4 quant.bits=4 sweep.time_limit=9)" in error


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.names.x=1,2", "task.names.x=1: invalid literal"),
        ("model.max_memory.0=a,b", "model.max_memory.0=a: Unexpected type"),
        ("model=1,2", "Config group override must be a string"),
        ("model=[pocket-1m,pocket-4m]", "model=[pocket-1m,pocket-4m]: a run has one. To go over several, -m model=a,b"),
        ("modle.path=a,b", "modle: no such setting. Did you mean model?"),
        ("quant.activations.x.y=1,2", "quant.activations.x: no such setting of quant=rtn3. There are quant.activations.bits,"),
        ("+quant.bits=4,5", "Either remove + prefix: 'quant.bits=4'"),
        ("quant.damp_percent=.1,.2", "quant.damp_percent: no such setting of quant=rtn3."),
    ],
)
def test_what_hydra_cannot_set_is_said_in_our_words_or_its_own(override, said):
    errors = composing.errors(composed("quant=rtn3", override))
    assert said in errors[0] and errors[0].startswith(("cell 0: ", "2 cells (0, 1): "))


def test_directories_that_cannot_be_known_are_refused():
    with pytest.raises(UserError, match=r"hydra\.sweep\.subdir: .* another time in each cell"):
        composed("quant=rtn3,rtn4", "hydra.sweep.subdir=${now:%f}-${hydra:job.num}")


def test_a_sweep_has_one_directory_whenever_its_cells_are_composed():
    with command("model=pocket-300k,pocket-1m", "quant=rtn3,rtn4", "hydra.sweep.dir=${now:%f}") as (master, loader):
        found = {cell.directory.parent for cell in composing.cells(master, loader)}  # by the microsecond
        assert found == {Path(master.hydra.sweep.dir)}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_composes(path):
    cells = composed(name=path.stem)
    assert len(cells) > 1 and composing.errors(cells) == []
    if path.stem == "paper":
        settings = {(cell.config.task.name, cell.config.calib.name, cell.config.metric.paper_compat) for cell in cells}
        assert settings == {("paper", "c4", True)}
    if path.stem == "pocket":  # of three sizes, two of them trained three times; full precision is in every cell
        assert len(cells) == len({cell.name for cell in cells}) == 7 * 4
        assert {cell.config.task.name for cell in cells} == {"pocket"}
        assert {cell.config.quant.name for cell in cells} == {"gptq4", "gptq3", "gptq2", "rtn3"}
    assert len({cell.name for cell in cells}) > 1 or path.stem == "calib_data"


def test_every_sweep_has_its_like_for_wandb():
    assert [path.name for path in WANDB] == [path.name for path in SWEEPS]


@pytest.mark.parametrize("path", WANDB, ids=lambda path: path.stem)
def test_every_wandb_sweep_names_the_same_cells(path):
    theirs = yaml.safe_load(path.read_text())
    assert theirs["program"] == "main.py" and theirs["method"] == "grid" and "${args_no_hyphens}" in theirs["command"]
    chosen = [f"{key}={','.join(map(str, one['values']))}" for key, one in theirs["parameters"].items()]
    *others, mode, group, place = [one for one in theirs["command"] if "=" in one]
    assert (mode, group) == ("tracking.mode=online", f"tracking.group={path.stem}")
    assert place == f"hydra.run.dir=outputs/{path.stem}/${{oc.env:WANDB_RUN_ID}}"
    assert [cell.config for cell in composed(*chosen, *others)] == [cell.config for cell in composed(name=path.stem)]


def test_a_thousand_cells_are_planned_in_seconds_with_all_that_is_wrong(tmp_path, monkeypatch):
    """At most 30 s on two processors; their time is counted, as other tests may have them meanwhile."""
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path))
    seeds = "calib.seed=" + ",".join(map(str, range(8)))
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)  # no model is loaded
    models = "model=pocket-300k,pocket-1m,pocket-4m,opt-125m,opt-1.3b,no-such"
    started = _processor_time()
    cells = composed(models, "quant=glob([rtn?,awq?,gptq?,hqq?,*float*])", seeds, f"hydra.sweep.dir={tmp_path}")
    planned, errors = plan.look(cells, Memo())
    assert len(planned) == len(cells) >= 1000 and _processor_time() - started < 60
    assert sum(bool(one.missing) for one in planned) >= 400
    said = "\n".join(errors)
    assert "model=no-such: no such option" in said and "quant=float32:" in said


def _processor_time() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
