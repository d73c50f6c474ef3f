"""What Hydra refuses is a sentence with the nearest allowed name, not Hydra's own words."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from bitsure.config import schema
from bitsure.config.hydra_errors import sentence
from bitsure.config.paths import CONF, PROJECT


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("quant=rnt3", "quant=rnt3: no such option. Did you mean rtn3"),
        ("hydra/launcher=jolib", "hydra/launcher=jolib: no such option. Did you mean joblib?"),
        ("task.limt=3", "task.limt: no such setting. Did you mean task.limit? Its settings are task.name, "),
        ("mertic.n_bins=3", "mertic: no such setting. Did you mean metric"),
        ("quants=rtn3", "quants: no such setting. Did you mean quant? The settings are model, quant, "),
        ("task.seed=abc", "task.seed=abc: a whole number is needed."),
        ("task.names=piqa", "task.names=piqa: a list is needed, such as 'task.names=[piqa]'."),
        ("quant=gptq5x", "quant=gptq5x: no such option. Did you mean gptq4, gptq3, gptq8 or gptq?"),
        ("task=piqa_x", "task=piqa_x: no such option. Did you mean piqa? "),
        ("limit=3", "limit: no such setting. Did you mean task.limit or text.limit? The settings are model, quant"),
        ("quant=opt-125m", "quant=opt-125m: no such option. It is one of model: model=opt-125m."),
        ("model=op-125m", "model=op-125m: no such option. Did you mean opt-125m or opt-350m? `bitsure list models` prints all"),
        (
            "model=facebook/opt-125m",
            "model=facebook/opt-125m: no such option. model=opt-125m is that repository. Any repository",
        ),
        ("model=/no/such", "model=/no/such: no such option. A directory is given as model=local model.path=/no/such."),
        ("model=a/b.gguf", "model=a/b.gguf: no such option. A GGUF file is given as model=gguf model.path=a/b.gguf."),
        ("model=org/own", "model=org/own: no such option. Any repository of the hub is given as model=hub model.repo=org/own."),
        (f"model={CONF}", f"model={CONF}: no such option. A directory is given as model=local model.path={CONF}."),
        (f"text={__file__}", f"text={__file__}: no such option. A file is given as text=local text.path={__file__}."),
        (f"calib={__file__}", f"calib={__file__}: no such option. A file is given as calib=text calib.path={__file__}."),
        ("pocket", "pocket: this cannot be read as a setting. Write key=value, "),
        ("model.url=http://host/v1?key=secret", "model.url=…: this cannot be read as a setting"),
        ("task.limit=[1", "task.limit=[1: this cannot be read as a setting ("),
        (
            "quant.bits=3,4",
            "quant.bits=3,4: one run has one value. For a run of each add -m in front; a list is 'quant.bits=[3,4]'.",
        ),
        ("scoring=vllm", "scoring=vllm: this is a group of settings, which are given one by one: scoring.engine, "),
        ("scoring.vllm=1", "scoring.vllm=1: this is a group of settings, which are given one by one: scoring.vllm.tensor_"),
        ("+model=pocket-1m", "+model=…: model has an option already. Leave out the +."),
    ],
)
def test_a_refused_setting_is_a_sentence(override, start):
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(HydraException) as refused:
        compose("config", overrides=[override])
    assert sentence(refused.value).startswith(start) and "\n" not in sentence(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-dir", "sweep"], f"--config-dir {PROJECT / 'sweep'}: no such directory. Did you mean sweeps?"),
        (["--config-dir", "sweeps", "--config-name", "scalez"], "--config-name scalez: no such file. Did you mean scales?"),
        (
            ["--config-name", "scales"],
            "--config-name scales: no such file. It is in sweeps: --config-dir sweeps --config-name scales",
        ),
        (["quant=rnt3"], "quant=rnt3: no such option. Did you mean rtn3"),
    ],
)
def test_the_command_line_says_it(commands, monkeypatch, arguments, message):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    done = commands.run(*arguments, cwd=PROJECT)
    assert done.returncode == 1 and done.stderr.startswith(f"Error: {message}"), done.stderr
    assert "HYDRA_FULL_ERROR" not in done.stderr
