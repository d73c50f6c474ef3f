"""Runs of one model between which only the engine differs are told from runs of two models."""

from __future__ import annotations

from bitsure.report.served_sentences import engine_parity, served_lines
from bitsure.results import Provenance
from bitsure.results.run_files import Machine, ModelOrigin, ServedOrigin

CONFIG = {"/a/config.json": "1", "/a/tokenizer.json": "2"}


def origin(files, url=None, weights=None, context=None, in_process=False):
    model = ModelOrigin(
        name="tiny",
        series=None,
        training_seed=None,
        revision=None,
        fingerprint=str(files),
        dtype="float32",
        repo=None,
        full_dtype=None,
        device_map=None,
        files=files,
    )
    facts = {
        "asked_by": "echo",
        "nondeterminism": 0.0,
        "inconsistency": None,
        "context": context,
        "reference": "",
        "stated": {},
        "in_process": in_process,
    }
    return Provenance(
        command=[],
        git_commit=None,
        git_changed_files=0,
        python="",
        packages={},
        machine=Machine(system="", processor="", cores=None, threads=None),
        model=model,
        weights=weights,
        servers={"quantized" if weights else "full precision": ServedOrigin(url=url, name="tiny", **facts)} if url else None,
    )


def test_only_the_engine_differs_where_tokenizer_and_config_are_the_same():
    here, served = origin(CONFIG | {"/a/model.safetensors": "3"}), origin(CONFIG, "http://a/v1")
    sentence = engine_parity(here, served)
    assert sentence.startswith(
        "Only the engine differs: the first run's model was run here in float32, the second's run by http://a/v1 as tiny."
    )
    assert engine_parity(served, origin(CONFIG, "http://b/v1")) is not None


def test_otherwise_more_differs_or_nothing():
    here, served = origin(CONFIG | {"/a/model.safetensors": "3"}), origin(CONFIG, "http://a/v1")
    assert engine_parity(here, here) is None
    assert engine_parity(here, origin(CONFIG | {"/a/config.json": "4"}, "http://a/v1")) is None
    assert engine_parity(origin(CONFIG, weights={"quant": {}}), served) is None
    assert engine_parity(None, served) is None


def test_quantized_weights_by_our_engine_and_by_vllms_kernels_differ_in_the_engine_alone():
    weights = {"quant": {"method": "gptq"}}
    here, vllm = origin(CONFIG, weights=weights), origin(CONFIG, "vLLM 0.32.0", weights, in_process=True)
    engines = "the first run's model was run here in float32, the second's run here by vLLM 0.32.0 in float32"
    assert engine_parity(here, vllm) == f"Only the engine differs: {engines}."
    assert "does not show its weights" not in served_lines(vllm)[0]


def test_the_context_of_a_server_is_stated():
    unknown, known = (origin(CONFIG, "http://a/v1", context=context) for context in (None, 512))
    assert "context" not in served_lines(unknown)[0]
    assert "Its context has 512 tokens: the beginning of longer questions is cut there." in served_lines(known)[0]
