"""Switches and options as people write them reach Hydra as what they mean."""

from __future__ import annotations

import pytest

from bitsure.config.command_line import as_hydra_reads


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("attribution=true", "attribution.measure=true"),
        ("compress=True,false", "compress.measure=True,false"),
        ("attribution.scorings=2", "attribution.scorings=2"),
        ("attribution=maybe", "attribution=maybe"),
        ("quant=4", "quant='4'"),
        ("quant=-1", "quant='-1'"),
        ("quant=1e3", "quant='1e3'"),
        ("+quant=inf", "+quant='inf'"),
        ("quant=4,gptq4", "quant=4,gptq4"),
        ("quant=[4]", "quant=[4]"),
        ("quant=[4", "quant=[4"),
        ("verdict=true", "verdict='true'"),
        ("task=null", "task='null'"),
        ("quant=gptq4", "quant=gptq4"),
        ("quant.bits=4", "quant.bits=4"),
        ("plan=true", "plan=true"),
        ("-m", "-m"),
        ("=4", "=4"),
    ],
)
def test_an_argument_is_what_it_means(written, read):
    assert as_hydra_reads(written) == read
