"""The package as it is installed: what it depends on, and what importing it costs."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bitsure
from bitsure.config.extras import RUN_PACKAGES
from bitsure.config.paths import PROJECT

HEAVY = ("torch", "transformers", "lm_eval", "wandb", "matplotlib", "vl_convert", "scipy", "datasets", "gptqmodel")


def pins(file: str) -> dict[str, str]:
    """The packages that a requirements file pins, by name."""
    lines = [line.split("#")[0].strip() for line in (PROJECT / file).read_text(encoding="utf-8").splitlines()]
    found = [Requirement(line) for line in lines if "==" in line]
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in found}


def declared() -> tuple[list[Requirement], list[Requirement]]:
    """The requirements in pyproject.toml: those of the package, and those of the extra `run`."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(one) for one in project["dependencies"]], [
        Requirement(one) for one in project["optional-dependencies"]["run"]
    ]


def test_what_was_tried_is_within_what_is_declared():
    core, run = declared()
    tried = pins("requirements.txt")
    for requirement in core + run:
        name = canonicalize_name(requirement.name)
        assert name in tried, f"requirements.txt does not pin {name}"
        assert requirement.specifier.contains(tried[name]), f"{name} {tried[name]} was tried, {requirement} is declared"


def test_an_extra_that_is_pinned_in_both_places_is_one_version():
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    tried = pins("requirements.txt")
    declared_here = [
        Requirement(line) for lines in extras.values() for line in lines if canonicalize_name(Requirement(line).name) in tried
    ]
    differing = [str(one) for one in declared_here if not one.specifier.contains(tried[canonicalize_name(one.name)])]
    assert differing == [] and {"mkdocs-material", "libgguf"} <= {one.name for one in declared_here}


def test_what_a_run_needs_is_asked_for_by_its_extra():
    assert sorted(RUN_PACKAGES) == sorted(requirement.name for requirement in declared()[1])


def test_a_light_install_says_what_brings_the_rest():
    without = "import sys; sys.modules['huggingface_hub'] = None; from bitsure.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", without, "export", "run", "out"], capture_output=True, text=True)
    [error] = done.stderr.splitlines()
    assert error.startswith("Error: bitsure export needs huggingface_hub, which is not installed:")
    assert error.endswith("python -m pip install -e '.[run]'")


def test_auto_gptqs_environment_has_what_reads_results():
    tried = pins("requirements-auto-gptq.txt")
    for requirement in declared()[0]:
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(tried[name]), f"{name} {tried[name]} was tried, {requirement} is declared"


def test_importing_the_package_and_its_command_loads_nothing_heavy():
    code = f"import sys, bitsure, bitsure.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["bitsure.__main__", "report"], ["bitsure.cli", "report"], ["bitsure.report.__main__"]])
def test_the_command_is_also_a_module(words, tmp_path, monkeypatch):
    module, *subcommand = words
    monkeypatch.setattr(sys, "argv", [module, *subcommand, str(tmp_path / "nowhere")])
    monkeypatch.delitem(sys.modules, module, raising=False)  # it runs as one that nobody has imported
    with pytest.raises(SystemExit, match="nowhere: no such directory"):
        runpy.run_module(module, run_name="__main__")


def test_the_packages_names_are_its_public_ones():
    assert {"load", "measure", "compare"} <= set(dir(bitsure)) == set(bitsure.__all__)


def test_the_configuration_is_part_of_the_package():
    inside = PROJECT / "src" / "bitsure" / "conf"
    assert inside.resolve() == Path(PROJECT / "conf").resolve()
    assert (inside / "metric" / "standard.yaml").is_file()
