"""Engines: which settings rule each other out."""

from __future__ import annotations

import pytest

from bitsure.base.errors import UserError
from bitsure.config.vllm_settings import VllmSettings
from tests.builders.composing import composed


@pytest.mark.parametrize(
    "given",
    [
        {"tensor_parallel": 0},
        {"pipeline_parallel": 0},
        {"questions": 0},
        {"context": 100},
        {"memory_share": 1.5},
        {"tolerance": 0.0},
    ],
)
def test_values_that_cannot_be_are_refused(given):
    with pytest.raises(UserError, match=rf"scoring\.vllm\.{next(iter(given))}="):
        VllmSettings(**given)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("scoring.engine=vlm", r"scoring\.engine=vlm"),
        ("scoring.engine=served", r"scoring\.engine=served: model\.url is missing, so that no server runs that model"),
        (
            "scoring.engine=served model=served model.url=http://a/v1 model.path=. quant=rtn4",
            r"scoring\.engine=served: quant\.url is missing",
        ),
        (
            "scoring.engine=vllm model=served model.url=http://a/v1 model.path=. quant=none",
            r"scoring\.engine=vllm: servers run all models of this run",
        ),
        ("scoring.vllm.eager=true", r"scoring\.vllm has no effect without scoring\.engine=vllm"),
        ("scoring.engine=vllm text=pocket", r"text=pocket: bitsure's own engine does that, and not vLLM"),
        ("scoring.engine=vllm scoring.share=false", r"scoring\.share=false: bitsure's own engine"),
        ("scoring.engine=vllm model.device_map=auto", r"model\.device_map=auto: bitsure's own engine"),
        (
            "scoring.engine=vllm quant=rtn4 +quant.activations.bits=8",
            r"quant=\S+ with quant\.activations: bitsure's own engine",
        ),
        (
            "scoring.engine=vllm scoring.dequantize=false model.dtype=bfloat16 quant=mxfp4-weights",
            r"scoring\.dequantize=false: vLLM is given integers .* quant=\S+ has none",
        ),
        ("scoring.engine=vllm control=noise", r"control\.seeds=\d+: bitsure's own engine"),
    ],
)
def test_an_engine_that_does_not_do_what_is_asked_for_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        composed(*overrides.split())


def test_an_engine_that_runs_the_models_is_accepted():
    assert composed("scoring.engine=vllm", "scoring.vllm.tensor_parallel=4").scoring.vllm.tensor_parallel == 4
    assert composed("scoring.engine=served", "model=served", "model.url=http://a/v1", "model.path=.", "quant=none")
