"""The project's files are found in a checkout and in an installed copy."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from bitsure.config.paths import CHECKOUT, CONF, PACKAGE, project_path

FIND = "from bitsure.config import paths; print(paths.CHECKOUT, paths.CONF, paths.project_path('.bitsure'))"


def test_a_checkout_has_them_beside_the_sources():
    assert CHECKOUT is not None and CHECKOUT / "src" / "bitsure" == PACKAGE
    assert CHECKOUT / "conf" == CONF and project_path("pocket/tasks").is_dir()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of a copy that is installed without the checkout."""
    copy = tmp_path_factory.mktemp("site") / "bitsure"
    shutil.copytree(PACKAGE / "config", copy / "config")
    shutil.copytree(PACKAGE / "base", copy / "base")
    shutil.copytree(CONF, copy / "conf")
    (copy / "__init__.py").touch()
    return copy


def output(installed, where, *command: str) -> list[str]:
    env = {"PYTHONPATH": str(installed.parent)}
    return subprocess.run(
        [sys.executable, *command], cwd=where, env=env, capture_output=True, text=True, check=True
    ).stdout.split()


def test_an_installed_copy_reads_conf_from_the_package_and_writes_where_it_is_started(installed, tmp_path):
    assert output(installed, tmp_path, "-c", FIND) == ["None", str(installed / "conf"), str(tmp_path / ".bitsure")]


def test_an_installed_copy_finds_what_lies_beside_the_main_py_that_is_started(installed, tmp_path):
    for folder in ("away", "checkout/conf", "checkout/pocket/tasks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "checkout" / "conf" / "config.yaml").touch()
    main = tmp_path / "checkout" / "main.py"
    main.write_text("from bitsure.config.paths import project_path; print(project_path('pocket/tasks'))")
    assert output(installed, tmp_path / "away", str(main)) == [str(tmp_path / "checkout" / "pocket" / "tasks")]


def test_an_installed_copy_names_the_package_in_what_installs_an_extra(installed, tmp_path):
    hint = "from bitsure.config.extras import how_to_install; print(how_to_install('dashboard'))"
    assert " ".join(output(installed, tmp_path, "-c", hint)) == "run python -m pip install 'bitsure[dashboard]'"
