"""The cells that a sweep's command names: as Hydra composes them, and everything that is wrong with them at once."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict, read_write

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.validation import to_dataclasses
from bitsure.sweep.launch import checked_groups, composing, dry_run
from tests.builders.sweep_commands import command, compose, compose_errors, compose_valid

SWEEPS = sorted((PROJECT / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=pocket-300k,pocket-1m", "quant=rtn3", "quant.group_size=32,64", "task.limit=5"],
        ["model=opt-125m", "calib=pile", "calib.seed=0,1", "hydra.sweep.subdir=${hydra:job.override_dirname}"],
        ["model=pocket-1m", "quant@quant.like=rtn3", "quant=noise", "quant.seed=1,2", "~control"],
        ["model=local", "model.path=/a,/b", "hydra.sweep.subdir=${hydra:job.num}-${model.path}"],
        ["quant=rtn3", "calib.seed=0,1", "tracking.notes=${hydra:job.override_dirname}"],
        ["quant=rtn3", "calib.seed=0,1", "tracking.notes=${hydra:overrides.task} ${hydra:overrides.hydra}"],
        ["quant=rtn3,rtn4", "hydra.sweep.dir=sweep-${now:%f}", "tracking.notes=${hydra:sweep.dir}"],
    ],
)
def test_cells_are_those_that_hydra_would_launch(overrides):
    with command(*overrides) as (master, loader):
        given = OmegaConf.to_container(master.hydra.overrides.task)  # `${…}` as it is written, as Hydra gives it to its sweeper
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(given)
        [expected] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        cells, errors = composing.compose_cells(master, loader)
        refused = {number for numbers in errors.numbers.values() for number in numbers}
        assert {cell.number: cell.overrides for cell in cells} == {
            number: job for number, job in enumerate(expected) if number not in refused
        }
        for number, job in enumerate(expected):
            config = loader.load_sweep_config(master, job)
            with read_write(config), open_dict(config):
                config.hydra.job.num = number
                HydraConfig.instance().set_config(config)
                directory = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
                del config["hydra"]
            if number in refused:
                with pytest.raises(UserError):
                    to_dataclasses(config)
            else:
                [cell] = [cell for cell in cells if cell.number == number]
                assert cell.directory == directory and cell.config == to_dataclasses(config)


def test_everything_that_is_wrong_is_listed_once():
    cells, errors = compose("model=pocket-1m,pocket-2m", "quant=rtn3,rtn4", "quant.bits=3,9", "calib.sed=1,2")
    assert cells == []
    [unknown] = [error for error in errors.lines() if "model=pocket-2m: no such option. Did you mean pocket-" in error]
    assert unknown.startswith("8 cells (9, 10,")
    assert any("calib.sed" in error for error in errors.lines())
    errors = compose_errors("model=pocket-1m", "quant=rtn3", "quant.bits=3,9", "task.limit=0,1")
    assert [error.split(":")[0] for error in errors] == ["2 cells (1, 3)", "2 cells (3, 4)"]
    assert "task.limit=0" in errors[0] and "quant.bits=9" in errors[1]


def test_settings_that_do_not_exist_or_are_of_another_type_are_all_named():
    wrong = ["calib.sed=1,2", "quant.bit=4,5", "quant.group_size=wide,128", "modle=pocket-1m,pocket-4m"]
    errors = compose_errors("quant=rtn3", *wrong)
    assert sorted(error.split(" (")[0] for error in errors) == ["16 cells"] * 3 + ["8 cells"]
    text = "\n".join(errors)
    assert "calib.sed: no such setting of calib=pocket. Did you mean calib.seed? Its settings are calib.name, " in text
    assert "quant.bit: no such setting of quant=rtn3. Did you mean quant.bits?" in text
    assert "modle: no such setting. Did you mean model?" in text
    assert "quant.group_size=wide: a whole number is needed" in text


def test_unknown_options_are_all_named_with_the_nearest():
    errors = compose_errors("model=pocket-1m,opt-125", "quant=gptq5,rtn9")
    starts = ("2 cells (1, 3): quant=gptq5: ", "2 cells (2, 4): quant=rtn9: ", "2 cells (3, 4): model=opt-125: ")
    assert len(errors) == 3 and all(any(error.startswith(start) for error in errors) for start in starts)
    assert all(
        "`bitsure list quants` prints all" in error and "Did you mean gptq" in error for error in errors if "gptq5" in error
    )
    assert any("opt-125: no such option. Did you mean opt-125m, " in error for error in errors)


def test_two_cells_that_would_write_to_one_directory_are_named():
    [error] = compose_errors("model=pocket-1m", "quant=rtn3", "quant.bits=3,4", "hydra.sweep.subdir=${model.name}")
    assert error.startswith("2 cells (1, 2)") and "pocket-1m" in error and "hydra.sweep.subdir" in error


def test_cells_that_are_the_same_are_named():
    errors = compose_errors("quant=rtn3,rtn4,rtn3", "calib.seed=0,1", "hydra.sweep.subdir=${quant.bits}-${calib.seed}")
    assert [error.partition(":")[0] for error in errors] == ["2 cells (1, 5)", "2 cells (2, 6)"]
    assert "have the same settings (quant=rtn3 calib.seed=0). Remove what is named twice" in errors[0]
    [error] = compose_errors("quant=rtn3,rtn4", "quant.bits=4", "sweep.time_limit=9")
    assert "(quant=rtn3 quant.bits=4 sweep.time_limit=9 and quant=rtn4 quant.bits=4 sweep.time_limit=9)" in error


def test_a_quantizer_that_reads_no_text_has_one_cell_where_repeated_ones_are_skipped():
    given = ("model=pocket-300k", "quant=rtn3,gptq3,none", "calib.seed=0,1,2")
    assert composing.repeated(compose_valid(*given)) == {}
    cells = compose_valid(*given, "sweep.skip_repeated=true")
    left_out = composing.repeated(cells)
    assert {number: earlier.number for number, earlier in left_out.items()} == {1: 0, 2: 0, 7: 6, 8: 6}
    assert composing.repeated(compose_valid("quant=rtn3", "task.limit=5,6", "sweep.skip_repeated=true")) == {}
    for setting in ("control=noise", "attribution.measure=true", "compress.measure=true"):  # which read held-out text
        cells = compose_valid("quant=rtn3", "calib.seed=0,1", setting, "sweep.skip_repeated=true")
        assert composing.repeated(cells) == {}


def test_a_setting_that_refers_to_others_is_each_cells_own():
    cells, errors = compose("quant=rtn3,none", "tracking.name=${quant.bits}", "tracking.notes=${hydra:runtime.choices.quant}")
    assert [(cell.config.tracking.name, cell.config.tracking.notes) for cell in cells] == [("3", "rtn3")]
    assert errors.lines() == [
        "cell 2: tracking.name=${quant.bits}: Interpolation key 'quant.bits' not found. Give what this run has."
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.names.x=1,2", "task.names.x=1: invalid literal"),
        ("model.max_memory.0=a,b", "model.max_memory.0=a: Unexpected type"),
        ("model=1,2", "model=1: no such option. "),
        ("model=[pocket-1m,pocket-4m]", "a run has one. For a run of each, use -m model=pocket-1m,pocket-4m"),
        (
            "task=[piqa,boolq]",
            "task=[piqa,boolq]: one run asks several tasks of lm-evaluation-harness with 'task.names=[piqa,boolq]'",
        ),
        ("modle.path=a,b", "modle: no such setting. Did you mean model?"),
        (
            "quant.activations.x.y=1,2",
            "quant.activations.x: no such setting of quant=rtn3. Its settings are quant.activations.bits,",
        ),
        ("+quant.bits=4,5", "Either remove + prefix: 'quant.bits=4'"),
        ("quant.damp_percent=.1,.2", "quant.damp_percent: no such setting of quant=rtn3."),
    ],
)
def test_what_hydra_cannot_set_is_an_error_in_plain_words(override, message):
    errors = compose_errors("quant=rtn3", override)
    assert message in errors[0] and errors[0].startswith(("cell 1: ", "2 cells (1, 2): "))


def test_a_range_without_steps_is_refused():
    with pytest.raises(UserError, match=r"quant\.damp_percent=interval\(0,1\): a sweep needs single values"):
        compose("quant=gptq4", "quant.damp_percent=interval(0,1)")


def test_directories_that_cannot_be_known_are_refused():
    with pytest.raises(UserError, match=r"hydra\.sweep\.subdir: .* another time in each cell"):
        compose("quant=rtn3,rtn4", "hydra.sweep.subdir=${now:%f}-${hydra:job.num}")


def test_a_sweep_has_one_directory_whenever_its_cells_are_composed():
    with command("model=pocket-300k,pocket-1m", "quant=rtn3,rtn4", "hydra.sweep.dir=${now:%f}") as (master, loader):
        cells, _ = composing.compose_cells(master, loader)  # the directory is named by the microsecond
        assert {cell.directory.parent for cell in cells} == {Path(master.hydra.sweep.dir)}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_option_that_a_sweep_names_exists(path):
    for group, options in yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"].items():
        for option in [] if "." in group else options.split(","):
            assert any((folder / group / f"{option}.yaml").is_file() for folder in (CONF, PROJECT / "sweeps")), option


def test_the_studys_sweep_has_the_studys_settings():
    cells = compose_valid("model=opt-125m", name="paper")
    settings = {(cell.config.task.name, cell.config.calib.name, cell.config.metric.paper_compat) for cell in cells}
    assert len(cells) == 2 and settings == {("paper", "c4", True)}


@pytest.mark.slow  # Hydra composes each of the cells by itself
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_composes(path):
    cells = compose_valid(name=path.stem)
    assert len(cells) > 1
    if path.stem == "pocket":  # of three sizes, two of them trained three times; full precision is in every cell
        assert len(cells) == len({cell.name for cell in cells}) == 7 * 4
        assert {cell.config.task.name for cell in cells} == {"pocket"}
        assert {cell.config.quant.name for cell in cells} == {"gptq4", "gptq3", "gptq2", "rtn3"}
    assert len({cell.name for cell in cells}) > 1 or path.stem == "calib_data"


def test_many_cells_are_composed_by_their_choices_of_groups(monkeypatch):
    """Hydra composes each choice of groups; what differs in values alone is a copy. Groups of equal values are checked once."""
    seeds = "calib.seed=" + ",".join(map(str, range(8)))
    monkeypatch.setattr(composing, "MANY", 10**6)  # one process, so that its calls are counted
    loaded, load = [], ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", lambda *given: loaded.append(given) or load(*given))
    checked = Mock(side_effect=to_dataclasses)
    monkeypatch.setattr(checked_groups, "to_dataclasses", checked)
    with command("model=pocket-300k,pocket-1m,no-such", "quant=rtn3,rtn4", seeds) as (master, loader):
        cells, errors = composing.compose_cells(master, loader)
    assert (len(cells), len(loaded)) == (32, 4) and len(errors.lines()) == 1
    assert checked.call_count == 8 + 1 + 1  # a seed is new, then a quantizer, then a model


def test_many_cells_are_composed_by_processes_as_by_one(monkeypatch):
    given = ("model=pocket-300k,pocket-1m", "quant=rtn3,none", "quant.bits=3,9", "hydra.sweep.dir=sweep")
    cells, errors = compose(*given)
    monkeypatch.setattr(composing, "MANY", 2)
    again, errors_again = compose(*given)
    assert again == cells and errors_again.lines() == errors.lines()


def test_a_process_composes_each_choice_of_groups_once(tmp_path, monkeypatch):
    load, seeds = ConfigLoaderImpl.load_sweep_config, "calib.seed=" + ",".join(map(str, range(8)))
    monkeypatch.setattr(composing, "MANY", 2)
    monkeypatch.setattr(composing, "AT_ONCE", 1)
    monkeypatch.setattr(composing.os, "cpu_count", lambda: 2)

    def load_with_a_note(*given):
        with (tmp_path / "loaded").open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        return load(*given)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", load_with_a_note)
    assert len(compose_valid("model=pocket-300k", "quant=rtn3", seeds)) == 8
    loaded = (tmp_path / "loaded").read_text(encoding="utf-8").split()
    assert 1 <= len(loaded) == len(set(loaded)) <= 2 and str(os.getpid()) not in loaded


@pytest.mark.slow
def test_a_thousand_cells_are_planned_with_all_that_is_wrong_and_no_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path))
    seeds = "calib.seed=" + ",".join(map(str, range(8)))
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)
    models = "model=pocket-300k,pocket-1m,pocket-4m,opt-125m,opt-1.3b,no-such"
    cells, errors = compose(models, "quant=glob([rtn?,awq?,gptq?,hqq?,*float*])", seeds, f"hydra.sweep.dir={tmp_path}")
    inspected = dry_run.inspect_cells(cells, errors, Memo())
    assert len(cells) + sum(map(len, errors.numbers.values())) >= 1000
    assert sum(bool(cell.missing) for cell in inspected) >= 400
    text = "\n".join(errors.lines())
    assert "model=no-such: no such option" in text and "quant=float32:" in text
