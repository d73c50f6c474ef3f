"""Every file in conf/ composes, and values that are not allowed are refused before anything is loaded."""

from __future__ import annotations

import itertools
import re
from itertools import zip_longest
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from benchmarks import models as table
from bitsure.base.errors import UserError
from bitsure.config.paths import CONF, PROJECT
from bitsure.config.schema import resolved
from bitsure.models.locate import locate_model
from bitsure.quantize.check import check_model
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.full_precision import NoQuant
from bitsure.quantize.native.rtn import Rtn
from tests.builders.composing import composed

OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
MODELS, QUANTIZERS = ([option for option in OPTIONS if option[0] == group] for group in ("model", "quant"))
OTHERS = [option for option in OPTIONS if option[0] not in ("model", "quant")]
# a model, a quantizer and an option of another group are composed at once
TOGETHER = [[option for option in options if option] for options in zip_longest(MODELS, QUANTIZERS, OTHERS)]
NEEDED = {
    **{("quant", method): ["quant.bits=4"] for method in ("rtn", "awq", "gptq", "hqq", "autoround")},
    ("quant", "mixed"): ["quant.bits_per_weight=3.5"],
    ("quant", "prequantized"): ["quant.path=some/where"],
    ("quant", "llamacpp"): ["quant.type=q4_k_m"],
    ("quant", "bnb"): ["quant.type=nf4"],
    ("quant", "mx"): ["quant.format=mxint4", "quant.activations.format=mxint8"],
    ("quant", "keep"): ["quant.kv.bits=4"],
    ("model", "local"): ["model.path=somewhere"],
    ("model", "served"): ["model.path=somewhere", "model.url=http://127.0.0.1:1/v1"],
    ("quant", "served"): ["quant.url=http://127.0.0.1:1/v1"],
    ("model", "gguf"): ["model.path=some.gguf"],
    ("model", "hub"): ["model.repo=org/name"],
    ("calib", "text"): ["calib.path=some.txt"],
    ("text", "local"): ["text.path=somewhere"],
    ("task", "none"): ["text=pocket"],  # something is scored
}


CHAINS = {  # preset → its name, which tells all settings
    "keep": "kv4",
    **{f"w{bits}": f"rtn{bits}-asym" for bits in (8, 6, 4, 3, 2)},
    "clip3": "clip+rtn3",
    "clip-asym3": "clip_asymmetric+rtn3-asym",
    "scale3": "scale+rtn3",
    "w8a8": "rtn8-asym-a8",
    "w4a8": "rtn4-asym-a8",
    "w6a6": "rtn6-asym-a6",
    "w4a4": "rtn4-asym-a4",
    "w4kv4": "rtn4-asym-kv4",
    "w4a8kv4": "rtn4-asym-a8-kv4",
    "smooth": "smooth+rtn8-row-a8-sym",
    "mx": "rtn-mxint4-a-mxint8",
    "mxfp4": "rtn-mxfp4-a-mxfp4",
    "mxfp4-weights": "rtn-mxfp4",
    "mxfp6": "rtn-mxfp6_e2m3-a-mxfp6_e2m3",
    "mxfp8": "rtn-mxfp8_e4m3-a-mxfp8_e4m3",
    "mxint4": "rtn-mxint4-a-mxint4",
    "mxfp6_e3m2": "rtn-mxfp6_e3m2-a-mxfp6_e3m2",
    "mxfp8_e5m2": "rtn-mxfp8_e5m2-a-mxfp8_e5m2",
    "mxint8": "rtn-mxint8-a-mxint8",
    "fp8": "rtn-fp8_e4m3-a-fp8_e4m3",
    "qllm-w4a4": "reassemble+rtn4-row-asym-a4-tuned",
    "qllm-w4a8": "reassemble+rtn4-row-asym-a8-tuned",
    "smooth-gptq-mxfp4": "smooth+gptq-mxfp4-a-mxfp4",
    "nvfp4": "rtn-nvfp4-a-nvfp4",
    "nvfp4-weights": "rtn-nvfp4",
    "int4-fp8": "rtn-int4_fp8-g128",
    "smooth-w4a4": "smooth+rtn4-asym-a4",
    "rotate-rtn4": "rotate+rtn4",
    "rotate-gptq4": "rotate+gptq4-native",
    "rotate-w4a4": "rotate124+rtn4-asym-a4",
    "rotate-gptq-w4a4kv4": "rotate1234+gptq4-asym-a4-kv4-native",
}


def test_the_sweep_of_best_practices_measures_clipping_and_scaling_separately():
    """Each beside plain rounding on the same grid, and both together."""
    named = set(re.findall(r"[\w-]+", (PROJECT / "sweeps" / "best_practice.yaml").read_text()))
    assert {"rtn3", "clip3", "scale3", "awq3", "w3", "clip-asym3"} <= named


@pytest.mark.parametrize("options", TOGETHER, ids=lambda options: "-".join(option for _, option in options))
def test_every_option_composes(options):
    needed = [override for option in options for override in NEEDED.get(option, [])]
    config = composed(*("=".join(option) for option in options), *needed)
    for group, option in options:
        chosen = getattr(config, group)
        assert type(chosen).__module__.startswith("bitsure.quantize" if group == "quant" else "bitsure.config")
        if group == "quant":
            names = {
                "noise": "noise-gptq4-0",
                "bnb": "bnb-nf4",
                "llamacpp": "q4_k_m",
                "prequantized": "where",
                "mixed": "gptq-mixed3.5-native",
            } | CHAINS
            assert chosen.name == names.get(option, option + "4" * (option in ("rtn", "awq", "gptq", "hqq", "autoround")))


def test_the_default_is_the_embedded_one():
    config = composed()
    assert (config.model.name, config.quant.name, config.task.name) == ("pocket-1m", "gptq4", "pocket")
    assert config.calib.name == "pocket" and config.tracking.mode == "offline"
    assert config.quant == Gptq(bits=4, group_size=128, symmetric=True, backend="gptqmodel", desc_act=False, damp_percent=0.01)


def test_a_model_sets_its_task_and_text_and_the_command_line_overrides_them():
    config = composed("model=opt-125m")
    assert (config.task.name, config.calib.name) == ("paper", "c4")
    assert (config.calib.nsamples, config.calib.seqlen, config.calib.if_missing) == (128, 2048, "error")
    config = composed("model=opt-125m", "task=pocket", "calib=text", "calib.path=a.txt")
    assert (config.task.name, config.calib.name) == ("pocket", "text")


def test_every_model_of_the_hub_has_its_known_properties():
    """A repository, its family, its size, the type it was published in, and its context, unless it has none."""
    repositories = {}
    for path in sorted((CONF / "model").glob("*.yaml")):
        model = OmegaConf.load(path).model
        if "repo" in model and path.stem != "hub":
            assert model.name == path.stem and {"family", "parameters", "full_dtype"} <= set(model), path
            assert "context" in model or model.family == "mamba", path
            repositories[model.name] = model.repo
    assert len(repositories) == len(set(repositories.values())) >= 90
    study = [f"opt-{size}" for size in ("125m", "350m", "1.3b", "2.7b", "6.7b", "13b", "30b", "66b")]
    study += [f"bloom-{size}" for size in ("560m", "1b1", "1b7", "3b", "7b1", "176b")]
    assert {*study, "llama-7b", "mistral-7b-v0.1", "mistral-7b-v0.3"} <= set(repositories)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.unquantizable=its blocks are odd"], "cannot be quantized here: its blocks are odd"),
        (["model.device_map=auto", "control=noise"], "noise is added to weights in memory"),
        (["model.device_map=auto", "quant=noise"], "noise is added to weights in memory"),
        (["model=chatglm3-6b", "model.trust_remote_code=true"], r"quant\.backend=gptqmodel: it loads the model itself"),
    ],
)
def test_a_model_that_a_quantizer_cannot_do_is_refused_before_it_is_located(overrides, message):
    given = composed(*overrides)
    with pytest.raises(UserError, match=message):
        check_model(given.model, given.quant, given.control.seeds > 0)


def test_a_model_that_needs_code_of_its_own_is_refused_before_it_is_located():
    with pytest.raises(UserError, match=r"Read that code, then add model\.trust_remote_code=true"):
        locate_model(composed("model=chatglm3-6b").model, None)


def test_the_table_of_models_is_up_to_date():
    assert table.OUT.read_text() == table.table(), "make models writes it"


def test_the_store_follows_the_environment(monkeypatch):
    monkeypatch.delenv("BITSURE_STORE", raising=False)
    assert composed().paths.store == str(PROJECT / ".bitsure")
    monkeypatch.setenv("BITSURE_STORE", "/elsewhere")
    assert composed().paths.store == "/elsewhere"


def test_names_tell_what_differs_from_a_preset():
    assert composed("quant=gptq4", "quant.group_size=32").quant.name == "gptq4-g32"
    assert composed("quant=gptq4", "quant.group_size=-1", "quant.desc_act=true").quant.name == "gptq4-row-actorder"
    assert composed("quant=rtn3", "quant.symmetric=false").quant == Rtn(3, 128, False)
    assert composed("quant=rtn3", "quant.symmetric=false").quant.name == "rtn3-asym"
    assert isinstance(composed("quant=none").quant, NoQuant)
    assert composed("quant=bnb-nf4", "quant.double_quant=true").quant.name == "bnb-nf4-double"
    assert composed("quant=hqq3", "quant.group_size=-1").quant.name == "hqq3-row"


def group_of(impossible: tuple[str, str]) -> str:
    """Return the group of settings that an override belongs to."""
    return re.split(r"[.=]", impossible[0])[0]


IMPOSSIBLE = [
    ("task.limit=0", "task.limit=0: must be a whole number of questions, 1 or more, or a fraction of them"),
    ("task.limit=1.5", "task.limit=1.5: must be a whole number"),
    ("task.limit=abc", "task.limit=abc: must be a whole number"),
    ("task.limit=true", "task.limit=True: must be a whole number"),
    ("quant.bits=5", "quant.bits=5: allowed are 2, 3, 4, 8 with quant.backend=gptqmodel; native has 2 to 8"),
    ("quant.bits=9", "quant.bits=9: allowed are 2, 3, 4, 8 with quant.backend=gptqmodel; native has 2 to 8"),
    ("quant.group_size=100", "-1, 16, 32, 64, 128, 256, 512, 1024"),
    ("quant.damp_percent=1", "a fraction between 0 and 1"),
    ("task.names=[]", "name at least one task"),
    ("task.names=[boolq,boolq]", "named twice"),
    ("model.dtype=int8", "auto, float32, bfloat16, float16"),
    ("model.repo=a/b", "either model.path"),
    ("model.full_dtype=int8", "float32, bfloat16, float16"),
    ("model.parameters=0", "must be 1 or more"),
    ("model.device=gpu", "allowed are auto, cpu, cuda"),
    ("model.device_map=disk", "auto, balanced, sequential"),
    ("model.max_memory=[cpu:1GiB]", "Add model.device_map=auto"),
    ("quant=prequantized", "either quant.path"),
    ("metric.resamples=3", "100 or more"),
    ("metric.alpha=0", "between 0 and 1"),
    ("metric.quantized_cost=0", "above 0, or null"),
    ("metric.resamples=1000000000", "1,000,000 or less"),
    ("metric.n_bins=1000000000", "10,000 or less"),
    ("verdict.accuracy_margin=inf", "a finite number above 0"),
    ("control.scale=inf", "a finite number above 0"),
    ("calib.nsamples=0", "1 or more"),
    ("calib.document_start='['", "no regular expression"),
    ("calib.kind=web", "allowed are text, task, random"),
    ("calib.kind=random", "calib=pocket reads no file: leave out calib.path"),
    ("calib=text", "needs calib.path=FILE"),
    ("tracking.mode=cloud", "offline, online, disabled"),
    ("tracking.tags=['']", "a tag is empty"),
    ("tracking.project=a/b", "takes no / in a project's name"),
    ("paths.hub_mirror=/no/such/place", "no such directory"),
]
# of each group of settings one is composed at once: the first error of each is listed
BY_GROUP = itertools.groupby(sorted(IMPOSSIBLE, key=group_of), key=group_of)


@pytest.mark.parametrize("impossible", zip_longest(*(list(rows) for _, rows in BY_GROUP)))
def test_impossible_values_are_refused(impossible):
    given = [row for row in impossible if row]
    with pytest.raises(UserError) as error:
        composed(*(override for override, _ in given))
    assert [override for override, message in given if message not in str(error.value)] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["quant=rtn4", "quant.transforms=[reassemble]"],
            r"transforms=\[reassemble\] makes activations easier .* quant\.activations",
        ),
        (
            ["quant=w4a4", "quant.transforms=[reassemble,smooth]"],
            "each once, in the order rotate, smooth, disassemble, reassemble, scale",
        ),
        (["quant=qllm-w4a4", "quant.transforms=[reassemble,scale]"], r"changes the weights that quant\.transforms=\[scale\]"),
        (["quant=rtn4", "quant.tuning.rank=0"], r"quant\.tuning\.rank=0"),
        (["quant=qllm-w4a8", "quant.tuning.epochs=0"], r"quant\.tuning\.epochs=0"),
        (["quant=qllm-w4a8", "quant.tuning.lr=0"], r"quant\.tuning\.lr=0"),
        (["quant=rtn4", "quant.rotation.seed=1"], "nothing is rotated. Add rotate to quant.transforms"),
        (["quant=rotate-rtn4", "quant.rotation.kinds=[r2,r1]"], "in the order r1, r2, r3, r4"),
        (["quant=rotate-rtn4", "quant.rotation.kinds=[r5]"], r"quant\.rotation\.kinds=r5"),
        (["quant=rotate-rtn4", "quant.rotation.kinds=[r3]"], r"none are rounded. Give quant\.kv\.bits=4"),
        (["quant=rotate-rtn4", "quant.rotation.steps=-1"], r"quant\.rotation\.steps=-1"),
        (["quant=rotate-rtn4", "quant.rotation.lr=0"], r"quant\.rotation\.lr=0"),
        (["quant=rotate-rtn4", "quant.rotation.lr=2"], r"nothing is learned without quant\.rotation\.steps"),
        (["quant=rotate-rtn4", "quant.rotation.kinds=[r4]", "quant.rotation.steps=5"], "r1 and r2 are learned"),
        (["quant=gptq4", "quant.transforms=[rotate]"], r"gptqmodel has none. Add quant\.backend=native"),
    ],
)
def test_transforms_and_tuning_that_would_do_nothing_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        composed(*overrides)


def test_tuning_is_on_where_it_has_a_rank_and_its_settings_are_in_the_name():
    assert composed("quant=rtn4").quant.tuning is None and not composed("quant=rtn4").quant.needs_data
    tuned = composed("quant=rtn4", "quant.tuning.rank=8", "quant.tuning.lr=1e-3").quant
    assert tuned.needs_data and tuned.name == "rtn4-tuned-rank8-lr0.001"
    with pytest.raises(UserError, match=r"quant\.tuning: no such setting"):
        composed("quant=gptq4", "quant.tuning.rank=4")


@pytest.mark.parametrize(("limit", "questions"), [("null", 40), ("5", 5), ("100", 40), ("0.1", 4), ("0.26", 11), ("0.001", 1)])
def test_a_limit_is_a_number_of_questions_or_a_fraction_of_them_as_in_the_harness(limit, questions):
    from lm_eval.evaluator_utils import get_sample_size

    task = composed(f"task.limit={limit}").task
    assert task.questions_of(40) == questions
    harness_task = SimpleNamespace(eval_docs=range(40))
    assert min(get_sample_size(harness_task, task.limit) or 40, 40) == questions
    assert task.limit is None or isinstance(task.limit, float if "." in limit else int)


def test_a_config_without_names_for_its_wandb_run_is_as_before_there_were_any():
    assert set(resolved(composed())["tracking"]) == {"mode", "project", "entity", "group"}
    named = resolved(composed("tracking.name=n", "tracking.tags=[a,b]", "tracking.notes=why"))["tracking"]
    assert (named["name"], named["tags"], named["notes"]) == ("n", ["a", "b"], "why")
