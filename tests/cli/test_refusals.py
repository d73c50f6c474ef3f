"""What the command line refuses: with what was given, what is allowed and what to do, before anything heavy."""

from __future__ import annotations

import json

import pytest

from bitsure.sweep.launch.callback import is_installed
from tests.builders.marks import needs_gptqmodel


def test_a_directory_with_records_is_refused_and_kept(bitsure, finished):
    kept = {name: (finished.directory / name).read_bytes() for name in ("records.parquet", "status.json")}
    run_dir = f"hydra.run.dir={finished.directory}"
    done = bitsure(*finished.overrides, run_dir, environment={"BITSURE_STORE": str(finished.store)})
    assert done.returncode == 1 and "already holds records" in done.stderr
    assert kept == {name: (finished.directory / name).read_bytes() for name in kept}


def test_a_sweep_with_anything_wrong_is_refused_before_its_first_cell_with_all_that_is(bitsure, tiny, tmp_path):
    done = bitsure("-m", *tiny, "quant=rtn2,gptq4", "quant.group_size=64,100", "calib.nsamples=8,9000", "hydra.sweep.dir=sweep")
    assert done.returncode == 1 and "no cell was started" in done.stderr and "Traceback" not in done.stderr
    assert "2 cells (4, 8): quant.group_size=100: allowed are -1, 16, " in done.stderr and "9000 windows" in done.stderr
    assert not (tmp_path / "sweep").exists() and not (tmp_path / "store" / "weights").exists()


@pytest.mark.parametrize("mode", [[], ["-m"]])
@pytest.mark.parametrize("url", ["http://me:sk-secret@host/v1", "'http://host/v1?api_key=sk-secret'"])
def test_a_key_in_an_address_gets_into_no_file(bitsure, tiny, tmp_path, mode, url):
    directory = "hydra.sweep.dir=run" if mode else "hydra.run.dir=run"
    for section in ("model", "quant"):
        done = bitsure(*mode, *tiny, f"{section}=served", f"{section}.url={url}", directory)
        assert done.returncode == 1 and f"{section}.url: an address with a user, a password or a key" in done.stderr
        assert "sk-secret" not in done.stderr + done.stdout
    assert [file for file in tmp_path.rglob("*") if file.is_file() and b"sk-secret" in file.read_bytes()] == []


def test_a_launcher_that_is_not_installed_is_named_with_the_command_that_brings_it(bitsure, tiny):
    if is_installed("hydra_ray_launcher"):
        pytest.skip("hydra-ray-launcher is installed: its absence cannot be tried")
    done = bitsure("-m", *tiny, "quant=rtn2,rtn8", "hydra/launcher=ray")
    assert done.returncode == 1 and "hydra_ray_launcher is not installed" in done.stderr
    assert "python -m pip install -e '.[ray]'" in done.stderr and "Traceback" not in done.stderr


def test_a_store_of_a_newer_version_is_refused_and_kept(bitsure, tiny, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "version").write_text("9")
    done = bitsure(*tiny)
    assert done.returncode == 1 and "written by a newer bitsure" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["version"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        *(
            pytest.param(*row, marks=pytest.mark.slow)  # tests/config has many such
            for row in (
                (["quant=gptq5"], "gptq4"),
                (["quant.bitz=3"], "bitz"),
                (["quant=[gptq4,gptq3]"], "quant=[gptq4,gptq3]: a run has one"),
            )
        ),
        (["task.limit=0"], "must be a whole number of questions, 1 or more, or a fraction"),
        (["model.path=/no/such/model"], "no such directory"),
        (["task.names=[tiny_pet]"], "Did you mean tiny_pets"),
        (["task.names=[tiny_code]"], "it runs the code that a model writes"),
        (["calib.path=none.txt"], "no such file"),
        (["tracking.mode=online"], "wandb login"),
        (
            ["quant=none", "tracking.name=${quant.bits}"],
            "tracking.name=${quant.bits}: Interpolation key 'quant.bits' not found",
        ),
        (["scoring.dequantize=false"], "only checkpoints of quant.backend=gptqmodel"),
        (["scoring.dequantize=false", "quant=gptq4"], "Add model.dtype=bfloat16"),
        pytest.param(["quant=gptq4", "quant.backend=auto_gptq"], "make setup-auto-gptq", marks=needs_gptqmodel),
    ],
)
def test_bad_input_is_an_error_before_weights_are_loaded(bitsure, tiny, tmp_path, overrides, said):
    environment = {"NETRC": str(tmp_path / "none"), "WANDB_API_KEY": ""}
    done = bitsure(*tiny, *overrides, "hydra.run.dir=run", environment=environment)
    assert done.returncode == 1 and said in done.stderr + done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store" / "weights").exists() and not (tmp_path / "run" / "records.parquet").exists()
    if (tmp_path / "run" / "status.json").exists():
        status = json.loads((tmp_path / "run" / "status.json").read_text())
        assert status["state"] == "failed" and said in status["error"]
        assert list(status["seconds"]) == ["check", "load tasks"][: 1 + (overrides == ["task.names=[tiny_code]"])]


def test_a_directory_without_weights_is_refused(bitsure, tiny, tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    done = bitsure(*tiny, "model.path=empty")
    assert done.returncode == 1 and "holds no config.json" in done.stderr
    (tmp_path / "empty" / "config.json").write_text((tiny_model / "config.json").read_text())
    done = bitsure(*tiny, "model.path=empty")
    assert done.returncode == 1 and "holds no weights" in done.stderr
