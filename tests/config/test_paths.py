"""The project's files are found in a checkout and in an installed copy."""

from __future__ import annotations

import shutil
import subprocess
import sys

from bitsure.config.paths import CHECKOUT, CONF, PACKAGE, project_path

FIND = "from bitsure.config import paths; print(paths.CHECKOUT, paths.CONF, paths.project_path('.bitsure'))"


def test_a_checkout_has_them_beside_the_sources():
    assert CHECKOUT is not None and CHECKOUT / "src" / "bitsure" == PACKAGE
    assert CHECKOUT / "conf" == CONF and project_path("pocket/tasks").is_dir()


def test_an_installed_copy_reads_conf_from_the_package_and_writes_where_it_is_started(tmp_path):
    installed = shutil.copytree(PACKAGE / "config", tmp_path / "site" / "bitsure" / "config")
    (installed.parent / "__init__.py").touch()
    shutil.copytree(CONF, installed.parent / "conf")
    env = {"PYTHONPATH": str(tmp_path / "site")}
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", FIND]
    done = subprocess.run(command, cwd=tmp_path / "work", env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", str(installed.parent / "conf"), str(tmp_path / "work" / ".bitsure")]
