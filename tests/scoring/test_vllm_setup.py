"""vLLM in this process (a stand-in for it): what it is given, what it scores, where it goes on, what is refused."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from bitsure.base.errors import NotInstalled, UserError
from bitsure.base.files import hash_json
from bitsure.base.store import Store
from bitsure.config.model import ModelSettings
from bitsure.config.schema import VLLM, ScoringSettings
from bitsure.config.vllm_settings import VllmSettings
from bitsure.models.load import load_model
from bitsure.models.locate import locate_model
from bitsure.quantize.checkpoint.apply_checkpoint import put_into
from bitsure.quantize.checkpoint.publish import write_unpacked
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.native.rtn import Rtn
from bitsure.scoring.journal import Journal
from bitsure.scoring.served.vllm_program import vllm_version
from bitsure.scoring.vllm_setup import VllmSetup
from tests.builders.fake_vllm import install_vllm
from tests.builders.families import MIXTURES, build
from tests.builders.loopback_server import hashed_logprobs
from tests.builders.marks import needs_transformers_5
from tests.builders.plans import plan
from tests.builders.quantizing import WINDOWS
from tests.builders.requests import some_requests
from tests.builders.tokenizers import byte_tokenizer

ROOT_CAUSE = "Engine core initialization failed. See root cause above."


@pytest.fixture
def engine_of(tiny_model, tmp_path, stack):
    """A function that makes the engine of a model, or of its quantized weights, from settings."""
    source, log_file = locate_model(ModelSettings(path=str(tiny_model)), None), tmp_path / "libraries.log"

    def make(checkpoint=None, dequantize=True, **settings):
        scoring = ScoringSettings(VLLM, dequantize=dequantize, vllm=VllmSettings(**settings))
        setup = VllmSetup(scoring, "float32", log_file)
        return setup.engine(setup.load(source, checkpoint, stack), 1024)

    return make


def test_vllm_gets_the_settings_and_its_log_probabilities_are_the_scores(engine_of, tiny_model, monkeypatch):
    calls = install_vllm(monkeypatch)
    given = {"tensor_parallel": 2, "pipeline_parallel": 3, "ray": True, "memory_share": 0.5, "context": 128, "eager": True}
    engine = engine_of(**given, prefix_caching=False, questions=8)
    requests = [([5, 6, 7], [8, 9]), ([5, 6, 7], [8]), (list(range(3, 203)), [4, 5])]
    results, (context, continuation) = engine.score(requests), requests[0]
    table = hashed_logprobs(context + continuation)
    expected = [table[place - 1, token] for place, token in enumerate(continuation, len(context))]
    assert results[0].token_logprobs == pytest.approx(expected)
    longest = max(len(prompt) for prompts in calls.prompts for prompt in prompts)
    assert longest == engine.max_length + 1 == 127  # one token is written after it
    assert calls.models == [
        {
            "model": str(tiny_model),
            "tokenizer": str(tiny_model),
            "dtype": "float32",
            "max_model_len": 128,
            "trust_remote_code": False,
            "tensor_parallel_size": 2,
            "pipeline_parallel_size": 3,
            "distributed_executor_backend": "ray",
            "gpu_memory_utilization": 0.5,
            "enable_prefix_caching": False,
            "enforce_eager": True,
            "seed": 0,
        }
    ]
    origin = engine.origin
    assert (origin.url, origin.name, origin.in_process, origin.context) == ("vLLM 0.32.0", tiny_model.name, True, 128)
    assert origin.nondeterminism == 0 and origin.inconsistency == pytest.approx(0)
    assert origin.stated["executor"] == "ray" and origin.stated["dtype"] == "float32"


def test_vllm_ends_with_its_scoring(engine_of, stack, monkeypatch):
    calls = install_vllm(monkeypatch)
    engine_of()
    assert calls.ended == 0
    stack.close()
    assert calls.grace == [None]


def test_vllm_that_is_refused_ends(engine_of, stack, monkeypatch):
    calls = install_vllm(monkeypatch, logprobs=lambda ids: hashed_logprobs(ids).round(2))
    with pytest.raises(UserError), stack:
        engine_of()
    assert calls.grace == [0]


@pytest.mark.usefixtures("default_signals")
def test_a_signal_amid_vllms_end_takes_effect_after_it(engine_of, stack, monkeypatch):
    calls = install_vllm(monkeypatch, stops_amid_end=signal.SIGINT)
    engine_of()
    with pytest.raises(KeyboardInterrupt):
        stack.close()
    assert calls.ended == 1


@pytest.mark.usefixtures("default_signals")
def test_a_signal_that_vllm_catches_while_it_starts_ends_it(engine_of, monkeypatch):
    calls = install_vllm(monkeypatch, stops_amid_start=signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        engine_of()
    assert calls.models == []


def test_vllm_is_asked_in_the_main_thread_which_signals_break_off(engine_of, monkeypatch):
    calls = install_vllm(monkeypatch)
    engine = engine_of()
    calls.threads.clear()
    engine.score(some_requests(4))
    assert calls.threads == {threading.main_thread()}


def test_a_run_that_stops_keeps_all_but_the_questions_under_way(engine_of, tmp_path, monkeypatch):
    requests, calls = some_requests(20), install_vllm(monkeypatch)
    engine, journal = engine_of(questions=4), Journal(tmp_path / "journal")
    calls.stops_after = len(calls.prompts) + 4  # a prompt of the longest one's length, and three times four questions
    with pytest.raises(KeyboardInterrupt):
        engine.score(requests, journal=journal)
    assert len(journal) == 3 * 4
    calls.stops_after, before = None, len(calls.prompts)
    results = engine_of(questions=4).score(requests, journal=Journal(tmp_path / "journal"))
    asked = [prompt for prompts in calls.prompts[before:] for prompt in prompts]
    again = [request for request in requests if request[0] + request[1] in asked]
    assert len(again) == len(requests) - 3 * 4
    assert results == engine_of().score(requests)


@pytest.mark.parametrize("dequantize", [True, False])
def test_quantized_weights_are_unpacked_or_written_in_a_layout_that_vllm_loads(
    dequantize, engine_of, tiny_model, calib_file, tmp_path, monkeypatch
):
    calls = install_vllm(monkeypatch)
    made = ensure_quantized(plan(tiny_model, Rtn(4, 32, True), calib_file), Store(tmp_path / "store"), tmp_path / "log")
    engine_of(made.checkpoint, dequantize)
    method = calls.configs[0].get("quantization_config", {}).get("quant_method")
    assert method == (None if dequantize else "compressed-tensors")
    assert not Path(calls.models[0]["model"]).exists()  # nothing is left on the disk


@needs_transformers_5
def test_fused_experts_are_unpacked_into_the_model_that_is_scored(calib_file, tmp_path):
    from transformers import AutoModelForCausalLM

    build("mixtral", **MIXTURES["mixtral"]).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    planned = plan(tmp_path / "model", Rtn(4, 32, True), calib_file)
    made = ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")
    write_unpacked(planned.source, made.checkpoint, tmp_path / "out", "rtn4", "float32")
    scored, _ = load_model(tmp_path / "model", "float32", "cpu")
    put_into(scored, made.checkpoint)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        torch.testing.assert_close(loaded(input_ids=WINDOWS).logits, scored(input_ids=WINDOWS).logits)


def test_weights_that_fit_no_layout_are_refused_with_what_runs_them(engine_of, tiny_model, calib_file, tmp_path, monkeypatch):
    install_vllm(monkeypatch)
    made = ensure_quantized(plan(tiny_model, Rtn(4, 48, True), calib_file), Store(tmp_path / "store"), tmp_path / "log")
    with pytest.raises(UserError, match=r"scoring\.engine=vllm: .*a shorter last one\. scoring\.engine=local runs it\.$"):
        engine_of(made.checkpoint, dequantize=False)


def test_a_context_that_vllm_does_not_read_is_said_of_its_setting(engine_of, monkeypatch):
    install_vllm(monkeypatch)
    engine = engine_of()
    monkeypatch.setattr(type(engine.server.model), "score", Mock(side_effect=UserError("x: the server is full.")))
    with pytest.raises(
        UserError, match=r"engine=vllm: vLLM's context .*: x: the server is full\. Leave out scoring\.vllm\.context"
    ):
        engine.score([([5, 6, 7], [8])])


def test_settings_that_change_log_probabilities_are_in_the_key(tmp_path, monkeypatch):
    install_vllm(monkeypatch)
    changed = [{}, {"eager": True}, {"prefix_caching": False}, {"tolerance": 0.1}]
    scoring = [ScoringSettings(VLLM, vllm=VllmSettings(**given)) for given in changed]
    keys = [VllmSetup(each, "float32", tmp_path / "log").key(quantized=False) for each in scoring]
    assert len({hash_json(key) for key in keys}) == len(changed)


def test_what_vllm_does_not_run_is_refused_in_its_words(engine_of, monkeypatch):
    install_vllm(monkeypatch, refuses="uint8b128 is not supported")
    with pytest.raises(UserError, match=r"scoring.engine=vllm: vLLM 0.32.0 does not run .*'uint8b128 is not supported'"):
        engine_of()


def test_a_kernel_that_is_missing_is_refused_in_its_words(engine_of, tmp_path, monkeypatch):
    install_vllm(monkeypatch, fails_after=0)
    log_file = re.escape(str(tmp_path / "libraries.log"))
    with pytest.raises(UserError, match=rf"does not run .*'no kernel cpu_gemm_wna16'\. {log_file} has its messages"):
        engine_of()


def test_the_error_of_a_process_of_vllm_is_told_from_its_log(engine_of, tmp_path, monkeypatch):
    told = (
        b"(Worker pid=1) ERROR [executor.py:953] ValueError: too little memory\n(EngineCore pid=2) Error: see the root cause\n"
    )
    install_vllm(monkeypatch, writes=told, refuses=ROOT_CAUSE)
    with pytest.raises(UserError, match=r"does not run .*: 'ValueError: too little memory'\. .*libraries\.log has"):
        engine_of()
    assert (tmp_path / "libraries.log").read_bytes() == told


def test_an_error_of_an_earlier_run_is_not_told(engine_of, tmp_path, monkeypatch):
    (tmp_path / "libraries.log").write_text("ValueError: of yesterday\n", encoding="utf-8")
    install_vllm(monkeypatch, refuses=ROOT_CAUSE)  # and writes nothing: a worker was killed
    with pytest.raises(UserError, match=re.escape(f"'{ROOT_CAUSE}'")):
        engine_of()


def test_ordinary_weights_are_advised_where_packed_ones_were_given(engine_of, tiny_model, calib_file, tmp_path, monkeypatch):
    install_vllm(monkeypatch, refuses="a kernel is missing")
    made = ensure_quantized(plan(tiny_model, Rtn(4, 32, True), calib_file), Store(tmp_path / "store"), tmp_path / "log")
    advised = {}
    for name, checkpoint, dequantize in [
        ("full precision", None, False),
        ("unpacked", made.checkpoint, True),
        ("packed", made.checkpoint, False),
    ]:
        with pytest.raises(UserError, match=r"scoring\.engine=local runs what transformers loads") as error:
            engine_of(checkpoint, dequantize)
        advised[name] = "scoring.dequantize=true gives it ordinary weights" in str(error.value)
    assert advised == {"full precision": False, "unpacked": False, "packed": True}


def test_messages_speak_of_vllm_and_not_of_a_server(engine_of, monkeypatch):
    install_vllm(monkeypatch, logprobs=lambda ids: hashed_logprobs(ids).round(2))
    with pytest.raises(UserError, match=r"scoring.engine=vllm: vLLM rounds log-probabilities to 2 decimals"):
        engine_of()


def test_without_vllm_one_sentence_says_what_to_install(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from bitsure.scoring.served import vllm_program

    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(vllm_program, "installed_version", missing)
    with pytest.raises(NotInstalled, match=r"needs vLLM, which is not installed: .*pip install vllm==0.32.0"):
        vllm_version()
