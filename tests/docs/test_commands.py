"""Every command of the documents: its settings are composed, its options are parsed, or a comment says what it needs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from bitsure import cli
from bitsure.base.dotted_names import import_named
from bitsure.base.memo import Memo
from bitsure.config.command_line import as_hydra_reads
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.schema import Config
from bitsure.quantize.mixed.recipe import RECIPE, Recipe
from bitsure.sweep.launch import cell_composer, composed_cell, dry_run
from tests.builders.documents import PAGES, FencedBlock, commands, fenced_blocks
from tests.builders.sweep_commands import command

BLOCKS = [block for page in PAGES for block in fenced_blocks(page)]
RUN = {"extending.md": ("bash", "python"), "python.md": ("python",), "README.md": ("python",)}  # by tests of their own
NOT_RUN = ("text", "yaml", "json", "bibtex")
PLACEHOLDERS = ("DIR", "RUN_DIR", "my_tasks", "../shared/hub")  # folders of the reader's that settings name
RECIPES = (f"RUN_DIR/{RECIPE}", "auto_scheme/*.yaml")  # files that other commands write
TARGETS = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


SHELL = [(block, words) for block in BLOCKS if block.language == "bash" for words in commands(block.text)]


def settings_of(words: list[str]) -> tuple[str, tuple[str, ...]] | None:
    """Return the config's name and the overrides of a command that composes settings; None for other commands."""
    program, *rest = words
    if program.endswith("python") and rest[0] == "main.py":
        rest = [as_hydra_reads(word) for word in rest[1:] if word not in ("-m", "--help")]
        name = "config"
        if "--config-name" in rest:
            at = rest.index("--config-name")
            name = rest[at + 1]
            del rest[at : at + 2]
        if "--config-dir" in rest:
            at = rest.index("--config-dir")
            if rest[at + 1] != "sweeps":  # a folder of the reader's own
                return None
            del rest[at : at + 2]
        return name, tuple(rest)
    if words[:2] in (["make", "prefetch"], ["bitsure", "prefetch"]):
        return "config", tuple(words[2:])
    return None


def first_cell(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Return the overrides of a sweep's first cell."""
    cell = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
        cell.append(f"{override.get_key_element()}={value}" if value else str(override.input_line))
    return tuple(cell)


def unknown_options(overrides: tuple[str, ...]) -> list[str]:
    """Return the options of a command's groups, each of a sweep's too, that have no file."""
    given = [override.partition("=") for override in overrides]
    options = [
        f"{group}/{option}.yaml" for group, _, options in given if (CONF / group).is_dir() for option in options.split(",")
    ]
    return [file for file in options if not any((folder / file).is_file() for folder in (CONF, PROJECT / "sweeps"))]


def composed(name: str, cells: Iterable[tuple[str, ...]]) -> tuple[list[composed_cell.ComposedCell], list[str]]:
    """Return the cells that can be composed, and what is wrong with the settings of the others."""
    valid, errors = [], []
    with command(name=name) as (master, loader):
        compose = cell_composer.CellComposer(master, loader)
        for number, overrides in enumerate(cells):
            cell = compose((number, list(overrides)))
            if isinstance(cell, composed_cell.ComposedCell):
                valid.append(cell)
            else:
                errors.append(f"{' '.join(overrides)}: {cell}")
    return valid, errors


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Work in a folder where the places that the documents name are there."""
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    for name in PLACEHOLDERS:
        Path(name).mkdir(parents=True)
    read = Recipe.read
    written = Recipe({"layer": 4})
    monkeypatch.setattr(Recipe, "read", lambda file: written if any(map(file.match, RECIPES)) else read(file))


COMPOSED = sorted({settings for _, words in SHELL if (settings := settings_of(words))})


@pytest.mark.parametrize("name", sorted({name for name, _ in COMPOSED}))
def test_settings_in_the_documents_exist_and_have_allowed_values(name, places):
    commands = [overrides for of, overrides in COMPOSED if of == name]
    unknown = [option for overrides in commands for option in unknown_options(overrides)]
    assert composed(name, sorted(set(map(first_cell, commands))))[1] + unknown == []


def test_a_misspelt_setting_is_an_error():
    _, [error] = composed("config", [("quant=gptq3", "quant.group_sizes=64")])
    assert "quant.group_sizes: no such setting" in error
    assert unknown_options(("quant=gptq4,gptq5", "calib.seed=0,1")) == ["quant/gptq5.yaml"]


def test_a_recipe_that_no_command_writes_is_an_error(places):
    _, [error] = composed("config", [("quant=mixed", f"quant.recipe=RUN_DIR/{name}") for name in (RECIPE, "recipes.yaml")])
    assert "quant.recipe=RUN_DIR/recipes.yaml: cannot be read" in error


@pytest.mark.slow
def test_commands_on_the_embedded_models_pass_the_dry_run(places, monkeypatch):
    monkeypatch.setenv("BITSURE_STORE", "store")
    here = [settings for block, words in SHELL if not block.needs and (settings := settings_of(words))]
    cells, _ = composed("config", sorted({first_cell(overrides) for name, overrides in here if name == "config"}))
    embedded = [
        cell
        for cell in cells
        if (cell.config.model.series, cell.config.calib.name, cell.config.task.name) == ("pocket",) * 3
        and cell.config.task.include_path != "my_tasks"
    ]
    errors = composed_cell.CellErrors()
    dry_run.inspect_cells(embedded, errors, Memo())
    assert errors.lines() == [] and len(embedded) > 5


def wrong_with(block: FencedBlock, words: list[str]) -> str | None:
    """Return what is wrong with a command whose settings are composed elsewhere, if anything is."""
    program, *rest = words
    if settings_of(words) or block.needs or words == ["source", ".venv/bin/activate"]:
        return None
    if program == "make":
        return next((f"no target {word}" for word in rest[:1] if word not in TARGETS), None)
    if program == "bitsure":
        try:
            cli._parser().parse_args(rest)
        except SystemExit:
            return "its options are not those of the command"
        return None
    if program == "python" and rest[0] == "-m":
        return None if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
    if program == "python" and block.language in RUN.get(block.page.name, ()):
        return None
    return "not run by a test: put <!-- needs: … --> before the block"


def test_other_commands_exist_or_say_what_they_need(capsys):
    wrong = {
        f"{block.page.name}: {shlex.join(words)}": reason for block, words in SHELL if (reason := wrong_with(block, words))
    }
    assert wrong == {}, capsys.readouterr().err


def test_python_in_the_documents_is_run_or_says_what_it_needs():
    left = [block for block in BLOCKS if block.language == "python" and not block.needs]
    assert [block for block in left if "python" not in RUN.get(block.page.name, ())] == []


def test_every_block_says_what_it_is():
    known = {*NOT_RUN, "bash", "python"}
    assert [f"{block.page.name}: {block.text[:60]}" for block in BLOCKS if block.language not in known] == []
    indented = re.compile(r"^ {4,}(python (main\.py|-m)|bitsure |make )", re.MULTILINE)
    assert [page.name for page in PAGES if indented.search(page.read_text(encoding="utf-8"))] == []


def test_targets_and_settings_that_a_sentence_names_exist():
    groups = {
        name: {field.name for field in fields(kind)} for name, kind in get_type_hints(Config).items() if is_dataclass(kind)
    }
    groups["quant"] = {field.name for kind in quantizers() for field in fields(kind)}
    wrong = []
    for page in PAGES:
        codes = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        wrong += [f"{page.name}: {code}" for code in codes if code.startswith("make ") and code.split()[1] not in TARGETS]
        named = [(code, match) for code in codes if (match := re.match(r"'?(\w+)\.(\w+)(\.\w+)*=", code))]
        wrong += [f"{page.name}: {code}" for code, match in named if match[1] in groups and match[2] not in groups[match[1]]]
    assert wrong == []


@pytest.mark.parametrize(("page", "group"), [("quantizers.md", "quant"), ("quantizers.md", "calib"), ("tasks.md", "task")])
def test_a_page_names_every_option_of_its_group(page, group):
    named = set(re.findall(r"[\w.-]+", (PROJECT / "docs" / page).read_text(encoding="utf-8")))
    assert sorted({file.stem for file in (CONF / group).glob("*.yaml")} - named) == []


def quantizers() -> set[type]:
    """Return the classes that the files of conf/quant name."""
    named = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in (CONF / "quant").glob("*.yaml")]
    return {import_named(settings["_target_"], "quant") for settings in named if "_target_" in settings}


def test_sections_of_a_report_that_are_explained_have_those_titles():
    explained = (
        (PROJECT / "docs" / "reading.md")
        .read_text(encoding="utf-8")
        .partition("## The page of a run\n")[2]
        .partition("\n## ")[0]
    )
    titles = re.findall(r"^\| (.+?) \|", explained, re.MULTILINE)[1:]
    parts = sorted((PROJECT / "src" / "bitsure" / "report").glob("page*.html"))
    page = "".join(part.read_text(encoding="utf-8") for part in parts)
    assert [title for title in titles if title != "Published numbers" and f'"{title}"' not in page] == []


def test_every_page_that_the_code_names_is_there():
    folders = ("src", "conf", "benchmarks", "pocket")
    files = [
        path for name in folders for path in (PROJECT / name).rglob("*") if path.suffix in (".py", ".yaml", ".html", ".md")
    ]
    files += [PROJECT / name for name in ("main.py", "Makefile", "README.md", "CONTRIBUTING.md", "mkdocs.yml")]
    named = {
        (str(path.relative_to(PROJECT)), page)
        for path in files
        if "egg-info" not in str(path)
        for page in re.findall(r"(?<![\w/])docs/[\w/]+\.(?:md|png)", path.read_text(encoding="utf-8"))
    }
    assert sorted((file, page) for file, page in named if not (PROJECT / page).is_file()) == []
