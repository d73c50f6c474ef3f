"""Small real models and tasks, built in code and written to disk as anyone's would be."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from tests.builders.browser import chromium
from tests.builders.forked_commands import Commands, command_server
from tests.builders.gguf_files import save_llama
from tests.builders.loopback_hub import serve
from tests.builders.pictures import blank, remembered_pictures
from tests.builders.tokenizers import TEXT, byte_tokenizer

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # another worker has the other processor
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as main.py does, before torch is loaded
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# an example takes long where other work runs beside the tests
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
# OmegaConf loads in plain Python, and Hydra reads every file anew for each composition
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def pytest_collection_finish() -> None:
    """Never search for garbage in what the libraries and the tests are."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def pictures_are_drawn_once() -> Iterator[None]:
    """Draw no picture twice: one specification gives one picture (tests/report/test_charts.py)."""
    with remembered_pictures():
        yield


@pytest.fixture(scope="module")
def blank_pictures() -> Iterator[None]:
    """Leave all pictures blank, which are not what the module is about."""
    with blank():
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random OPT of two blocks, width 64, with a byte-level tokenizer, as a Hugging Face directory."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        word_embed_proj_dim=64,
        ffn_dim=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        init_std=0.2,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    OPTForCausalLM(config).eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Iterator[Commands]:
    """What runs main.py in processes of their own."""
    with command_server(tmp_path_factory.mktemp("commands")) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """A random Llama of two blocks, width 256, whose heads share keys and values, as a Hugging Face directory."""
    pytest.importorskip("gguf", reason="auto-gptq's environment reads no GGUF files")
    path = tmp_path_factory.mktemp("models") / "llama"
    save_llama(path, 256)
    return path


@pytest.fixture(scope="session")
def calib_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "calib.txt"
    path.write_text("\n\n".join(f"{i} {TEXT}" for i in range(400)))
    return path


@pytest.fixture(scope="session")
def own_tasks(tmp_path_factory) -> Path:
    """A folder of one's own tasks: `tiny_pets` (3 choices, 20 questions), the same with a training split as `tiny_taught` (22
    questions, 2 of which are scored too), `tiny_last` (a word to continue with), `tiny_pages` (8 whole texts), `tiny_free`
    (an answer that is written freely), `tiny_code` (the same, run as code), and `tiny_group` of the first and the last."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"q": f"{TEXT} Number {i}: I saw a", "options": ["cat", "big brown dog", "fox"], "gold": i % 3} for i in range(20)]
    (folder / "pets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lessons = [row | {"q": row["q"].replace("Number", "Lesson")} for row in rows] + rows[:2]
    (folder / "lessons.jsonl").write_text("\n".join(map(json.dumps, lessons)))
    common = "dataset_path: json\ndataset_kwargs: {data_files: {test: pets.jsonl}}\ntest_split: test\ndoc_to_text: '{{q}}'\n"
    (folder / "tiny_pets.yaml").write_text(
        f"task: tiny_pets\n{common}output_type: multiple_choice\ndoc_to_choice: options\ndoc_to_target: gold\n"
        "metric_list: [{metric: acc}]\n"
    )
    (folder / "tiny_taught.yaml").write_text(
        (folder / "tiny_pets.yaml")
        .read_text()
        .replace("tiny_pets", "tiny_taught")
        .replace("{test:", "{train: lessons.jsonl, test:")
        + "training_split: train\n"
    )
    (folder / "tiny_last.yaml").write_text(
        f"task: tiny_last\n{common}output_type: loglikelihood\ndoc_to_target: '{{{{\" \" + options[gold]}}}}'\n"
        "metric_list: [{metric: perplexity}, {metric: acc}]\n"
    )
    pages = [{"page": f"{TEXT * (40 * (i % 3) + 1)} Page {i} ."} for i in range(8)]  # some longer than the tiny model's context
    (folder / "pages.jsonl").write_text("\n".join(map(json.dumps, pages)))
    (folder / "tiny_pages.yaml").write_text(
        f"task: tiny_pages\n{common.replace('pets', 'pages').replace('{{q}}', '')}output_type: loglikelihood_rolling\n"
        "doc_to_target: '{{page}}'\n"
        "metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]\n"
    )
    (folder / "tiny_group.yaml").write_text("group: tiny_group\ntask: [tiny_pets, tiny_code]\n")
    (folder / "tiny_free.yaml").write_text(
        f"task: tiny_free\n{common}output_type: generate_until\ndoc_to_target: '{{{{options[0]}}}}'\n"
        "generation_kwargs: {until: ['.'], max_gen_toks: 6}\nmetric_list: [{metric: exact_match}]\n"
    )
    free = (folder / "tiny_free.yaml").read_text()
    (folder / "tiny_code.yaml").write_text(free.replace("tiny_free", "tiny_code") + "unsafe_code: true\n")
    return folder


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Python's own handlers of Ctrl-C and SIGTERM: a shell's background job starts with Ctrl-C ignored."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub, an empty cache, no token, and no waiting."""
    from huggingface_hub import constants

    with serve() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield running


@pytest.fixture
def published(served, tiny_model, tmp_path):
    """The tiny model as repositories have it: weights also in another format, and copies in a folder."""
    folder = shutil.copytree(tiny_model, tmp_path / "published")
    (folder / "original").mkdir()
    for name in ("pytorch_model.bin", "flax_model.msgpack", "original/params.json", "README.md", "modeling_tiny.py"):
        (folder / name).write_bytes(b"not to be fetched")
    return served.add("org/tiny", folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for tests that need a browser."""
    with chromium() as started:
        yield started
