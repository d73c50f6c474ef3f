"""A model's path that does not exist is an error before torch is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bitsure.base.errors import UserError
from bitsure.config.model import ModelSettings, check_there
from bitsure.config.paths import PROJECT


def test_a_path_that_is_not_there_is_named_with_its_kind(tmp_path):
    check_there(ModelSettings(repo="org/name"))
    check_there(ModelSettings(path=str(tmp_path)))
    with pytest.raises(UserError, match=r"model\.path=/no/such: no such directory \(looked at /no/such\)\."):
        check_there(ModelSettings(path="/no/such"))
    with pytest.raises(UserError, match=r"quant\.path=/no/such\.gguf: no such file"):
        check_there(ModelSettings(path="/no/such.gguf"), "quant")


def test_it_is_refused_before_torch_is_imported(tmp_path):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['main.py', 'model=local', 'model.path=/no/such', 'hydra.run.dir={tmp_path}']\n"
        "try:\n    runpy.run_path('main.py', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("no such directory (looked at /no/such). False"), done.stdout + done.stderr
