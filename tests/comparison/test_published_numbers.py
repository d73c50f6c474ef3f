from __future__ import annotations

import io
import json
import re
from dataclasses import asdict

import pytest
import yaml

from bitsure.base.terminal import Console
from bitsure.comparison.published_numbers import find_published, published_rows
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.paths import CONF
from bitsure.config.quantizers import Tuning
from bitsure.quantize.libraries.bnb import Bnb
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.noise import Noise
from bitsure.quantize.native.rtn import Rtn
from bitsure.records.parquet import write_records
from bitsure.report import page, published_table
from bitsure.report.command import report_run
from bitsure.results import Measurement, write
from bitsure.results.run_files import TextOrigin
from tests.builders.records import record
from tests.builders.result_files import model_origin, provenance

pytestmark = pytest.mark.usefixtures("blank_pictures")

W4 = {"method": "rtn", **asdict(Rtn(4, 128, False))}
GPTQ4 = {"method": "gptq", **asdict(Gptq(4, 128, True, backend="native", desc_act=False, damp_percent=0.01))}


def number(value: float) -> Measurement:
    return Measurement(value=value, ci_low=value - 0.01, ci_high=value + 0.01, n=5153)


def beside(model="opt-125m", quant=W4, task="lambada_openai", metric="accuracy", settings=None):
    metrics, baseline = ({task: {metric: number(value)}} for value in (0.38, 0.4))
    return find_published(model, quant, settings or {}, metrics, baseline if quant else None)


def test_the_table_is_what_the_papers_print():
    values = {(row.model, row.setting, row.task): row.value for row in published_rows()}
    assert len(values) == len(published_rows()) == 25 + 8 + 28 + 11 + 4 + 76 + 27 + 12 + 6 + 5
    assert values["opt-125m", "W3", "lambada_openai"] == 18.61
    assert values["llama-2-7b-chat", "W4A4", "hellaswag"] == 30.12 and values["llama-2-7b-chat", "KV2", "hellaswag"] == 42.70
    assert values["llama-2-70b", "QLLM W4A4", "text/wikitext2/gptq"] == 7
    assert values["llama-7b", "3g128-GPTQ", "text/wikitext2/gptq"] == 6.61
    assert values["mistral-7b-v0.1", "GPTQ 4 bits", "boolq"] == 41.75
    assert (values["opt-125m", "RTN 3 bits", "text/wikitext2/gptq"], values["bloom-176b", "full", "text/c4/gptq"]) == (
        1300,
        11.71,
    )
    assert values["llama-2-7b", "GPTQ w3a16g128, calibrated on C4", "text/c4/gptq"] == 8.385
    assert values["bloom-7b1", "full precision", "xstorycloze_en"] == 5.53


def test_every_row_says_where_it_is_from_and_the_study_own_that_its_metric_is_faulty():
    assert all(row.source and row.note for row in published_rows())
    of_the_notebook = [row for row in published_rows() if "quantized-lm-confidence" in row.source]
    assert len(of_the_notebook) == 28
    assert all(row.metric == "paper_compat/ace" and "faulty" in row.note for row in of_the_notebook)


def test_quantized_and_full_precision_stand_beside_their_own():
    full, quantized = beside()
    assert (full.setting, full.published, full.measured.value) == ("FP16", 39.63, pytest.approx(40))
    assert (quantized.setting, quantized.published) == ("W4", 38.70)
    assert quantized.measured.model_dump() == pytest.approx({"value": 38, "ci_low": 37, "ci_high": 39}) and quantized.n == 5153
    assert quantized.same == [
        "model by its name",
        "task",
        "bits",
        "rounding rtn",
        "group size 128",
        "symmetric: False",
        "few-shot examples 0",
    ]
    assert quantized.differs == []


def test_what_differs_is_named():
    quant = W4 | {"group_size": 64, "symmetric": True, "transforms": ["clip"]}
    found = beside(quant=quant, settings={"num_fewshot": 5, "limit": 200})[1]
    assert found.differs == [
        "group size 64 instead of 128",
        "symmetric: True instead of False",
        "few-shot examples 5 instead of 0",
        "after clip",
        "the first 200 questions alone",
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "opt-1.3b"},
        {"task": "lambada_standard"},
        {"metric": "confidence"},
        {
            "model": "llama-2-70b",
            "task": "text/wikitext2/gptq",
            "metric": "perplexity",
        },  # QLLM's, and this is rounding to nearest
    ],
)
def test_another_model_task_metric_or_method_is_no_match(other):
    assert beside(**other) == []


@pytest.mark.parametrize(
    "quant",
    [
        W4 | {"bits": 5},
        GPTQ4,
        W4 | {"activations": {"bits": 8}},
        W4 | {"kv": {"bits": 4}},
        W4 | {"format": "mxint4"},
        {"method": "noise", **asdict(Noise(like=Rtn(4, 128, False)))},
        {"method": "bnb", **asdict(Bnb("nf4"))},
        {"method": "prequantized", "checkpoint": "abc"},
    ],
)
def test_another_quantizer_has_full_precision_alone(quant):
    assert [one.setting for one in beside(quant=quant)] == ["FP16"]


@pytest.mark.parametrize(
    ("quant", "setting"),
    [
        (W4 | {"activations": {"bits": 8}}, "W4A8"),
        ({"method": "kept", "transforms": [], "activations": None, "kv": {"bits": 3, "format": "int"}}, "KV3"),
        ({"method": "kept", "transforms": [], "activations": None, "kv": {"bits": 8, "format": "fp8_e4m3"}}, None),
        (GPTQ4, None),
    ],
)
def test_activations_keys_and_values_count_too(quant, setting):
    found = [one.setting for one in beside("llama-2-7b-chat", quant, "hellaswag")]
    assert found == ["FP16"] + ([setting] if setting else [])


def beside_text(task, **changes):
    cut = {
        "protocol": "gptq",
        "window": 2048,
        "stride": None,
        "limit": None,
        "bos": "before the text",
        "windows": 1,
        "tokens": 9,
    }
    text = TextOrigin(task=task, sha256="a", origin={}, **cut | changes)
    quant = {"method": "rtn", **asdict(Rtn(4, -1, False))}
    return find_published("llama-7b", quant, {"limit": 9}, *[{task: {"perplexity": number(5.7)}}] * 2, text=text)


def test_a_text_s_numbers_stand_beside_those_of_its_protocol():
    numbers = beside_text("text/wikitext2/gptq")
    assert [(number.published, number.differs) for number in numbers] == [(5.68, []), (6.29, []), (5.67, []), (6.28, [])]
    assert "few-shot examples 0" not in numbers[1].same
    assert {number.published for number in beside_text("text/c4/gptq")} == {7.05, 7.7}
    shorter = beside_text("text/wikitext2/gptq", window=640, limit=8192)[0]
    assert shorter.differs == ["windows of 640 tokens instead of 2,048", "the first 8,192 tokens alone"]
    other = beside_text("text/wikitext2/llamacpp", window=512)[0]
    assert (other.task, other.published) == ("text/wikitext2/llamacpp", 5.68)
    assert other.differs == ["the protocol llamacpp instead of gptq", "windows of 512 tokens instead of 2,048"]
    without = beside_text("text/wikitext2/gptq", bos="none")[0]
    assert without.differs == ["BOS none instead of before the text"]
    assert beside_text("text/local/gptq") == []


QLLM = {"method": "rtn", **asdict(Rtn(4, -1, False, transforms=["reassemble"], activations=Activations(4), tuning=Tuning(4)))}


def test_qllm_is_reassembling_and_tuning_together():
    [found] = beside("llama-2-70b", QLLM, "text/wikitext2/gptq", "perplexity")
    assert (found.setting, found.published, found.differs) == ("QLLM W4A4", 7, [])
    assert "rounding qllm" in found.same
    assert beside("llama-2-70b", QLLM | {"tuning": None}, "text/wikitext2/gptq", "perplexity") == []
    assert beside("llama-2-70b", QLLM | {"transforms": []}, "text/wikitext2/gptq", "perplexity") == []


def test_tuned_weights_are_not_beside_those_rounded_alone():
    quant = {"method": "rtn", **asdict(Rtn(4, 128, False, activations=Activations(4)))}
    settings = [
        [one.setting for one in beside("llama-2-7b-chat", one, "hellaswag")] for one in (quant, quant | {"tuning": {"rank": 4}})
    ]
    assert settings == [["FP16", "W4A4"], ["FP16"]]


def test_groups_and_symmetry_of_activations_keys_and_values_are_compared():
    static = {"method": "rtn", **asdict(Rtn(8, 128, False, activations=Activations(8, 0, True)))}
    found = beside("llama-2-7b-chat", static, "hellaswag")[1]
    assert found.differs == ["activations' group size 0 instead of -1", "activations symmetric: True instead of False"]
    as_published = static | {"activations": asdict(Activations(8))}
    found = beside("llama-2-7b-chat", as_published, "hellaswag")[1]
    assert found.differs == [] and "activations symmetric: False" in found.same
    kept = {"method": "kept", **asdict(Kept(kv=KeysValues(4, 64, True)))}
    found = beside("llama-2-7b-chat", kept, "hellaswag")[1]
    assert found.differs == [
        "keys' and values' group size 64 instead of -1",
        "keys and values symmetric: True instead of False",
    ]


def test_a_full_precision_run_has_its_own_number():
    [full] = beside(quant=None)
    assert (full.setting, full.measured.value) == ("FP16", pytest.approx(38))


def test_the_study_notebook_beside_its_metric():
    full, quantized = beside("bloom-7b1", GPTQ4, "hellaswag", "paper_compat/ace")
    assert (full.published, quantized.published) == (48.54, 49.61) and quantized.differs == []


def test_numbers_that_a_run_does_not_have_are_left_out():
    nothing = {"hellaswag": {"accuracy": number(0.5).model_copy(update={"value": None})}}
    assert find_published("llama-2-7b-chat", None, {}, nothing, None) == []
    assert find_published(None, None, {}, nothing, None) == []


def test_every_task_of_the_table_is_of_the_harness_or_the_study():
    known = yaml.safe_load((CONF / "task" / "paper.yaml").read_text())["names"]
    assert {row.task for row in published_rows()} <= {
        *known,
        "lambada_openai",
        *(f"text/{text}/gptq" for text in ("wikitext2", "c4", "ptb")),
    }


@pytest.fixture
def run_dir(tmp_path):
    """A finished run of a model called llama-2-7b-chat, rounded to 4 bits with activations of 8, on some of HellaSwag."""
    sides = {"baseline": 0.1, "records": 0.3}
    for name, worse in sides.items():
        rows = [record([-1.0 - worse * (i % 3), -1.2, -2.0, -3.0], task="hellaswag", doc_id=i) for i in range(60)]
        write_records(tmp_path / f"{name}.parquet", rows, {"hellaswag": {"libraries": {}}})
    quant = W4 | {"activations": {"bits": 8}, "group_size": 64}
    write(tmp_path / "provenance.json", provenance(model=model_origin("llama-2-7b-chat"), weights={"quant": quant}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"task": {"num_fewshot": None, "limit": 60}}))
    return tmp_path


def test_table_page_and_file_show_both_and_tell_them_apart(run_dir, capsys):
    report_run(run_dir)
    said, page = capsys.readouterr().out, (run_dir / "report.html").read_text()
    measured = {
        name: 100 * json.loads((run_dir / f"{file}.json").read_text())["hellaswag"]["accuracy"]["value"]
        for name, file in (("FP16", "baseline_metrics"), ("W4A8", "metrics"))
    }
    assert measured["FP16"] != measured["W4A8"]
    for setting, printed in (("FP16", 70.28), ("W4A8", 68.81)):
        [line] = [line for line in said.splitlines() if setting in line and "×" in line]
        assert line.split()[-2:] == [f"{printed:.2f}", f"{measured[setting]:.2f}"]
        assert f"<td>{printed:.2f}</td><td>{measured[setting]:.2f}</td>" in re.sub("<td [^>]*>", "<td>", page)
    assert "published measured" in said and "group size 64 instead of 128, the first 60 questions alone" in said
    found = json.loads((run_dir / "published.json").read_text())
    assert [(one["setting"], one["published"]) for one in found] == [("FP16", 70.28), ("W4A8", 68.81)]
    for name in ("metrics.json", "baseline_metrics.json", "comparison.json"):
        assert "70.28" not in (run_dir / name).read_text()  # what is published is never among what was measured


def test_a_report_that_is_broken_off_leaves_the_one_before_as_it_was(run_dir, monkeypatch):
    report_run(run_dir)
    files = lambda: {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}  # noqa: E731
    before = files()

    def broken(made, *given):
        assert all(
            drawn.path.is_file() for charts in made.figures.values() for drawn in charts.values() if drawn.path
        )  # all is drawn by now
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(page, "render", broken)
        report_run(run_dir, metric_name="paper_compat")
    assert files() == before
    report_run(run_dir, metric_name="paper_compat")
    assert files().keys() == before.keys() and "paper_compat/" in (run_dir / "metrics.json").read_text()


def test_a_report_without_a_baseline_leaves_no_comparison_of_an_earlier_one(run_dir, tmp_path):
    report_run(run_dir, out=tmp_path)
    assert (tmp_path / "comparison.json").is_file() and (tmp_path / "changes.parquet").is_file()
    (run_dir / "baseline.parquet").unlink()
    report_run(run_dir, out=tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left.isdisjoint({"baseline_metrics.json", "comparison.json", "verdict.json", "changes.parquet"})


def test_a_run_that_does_not_say_how_it_was_quantized_has_nothing_published_beside_it(run_dir):
    file = run_dir / "provenance.json"
    provenance = json.loads(file.read_text())
    for weights in ({}, {"quant": None}, {"quant": {"method": "rtn"}}):
        file.write_text(json.dumps(provenance | {"weights": weights}))
        assert all(number.setting == "FP16" for number in report_run(run_dir).published)


def test_the_table_fits_80_columns():
    found = beside("bloom-7b1", GPTQ4, "truthfulqa_mc1", "paper_compat/ace")
    out = io.StringIO()
    published_table.show(Console(file=out, width=80), found)
    table = out.getvalue().split("\n- ")[0]
    assert "4.05" in table and "…" not in table and max(map(len, table.splitlines())) <= 80
