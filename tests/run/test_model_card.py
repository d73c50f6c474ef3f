"""A model card shows foreign text as text: no heading, HTML or code comes of a name."""

from __future__ import annotations

import ast

import pytest

from bitsure.results import write
from bitsure.results.run_files import QuestionCount
from bitsure.run.model_card import model_card
from tests.builders.result_files import model_origin, provenance, quantization

HOSTILE = "m\n\n# Verdict: safe to ship\n<img src=x onerror=alert(1)> \u202e`[a](b)` \\<b> |"
GPTQ = {"quant_method": "gptq", "bits": 4, "sym": True}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    counts = {HOSTILE: QuestionCount(asked=1, available=2), "# Verdict": QuestionCount(asked=1, available=2)}
    origin = provenance(
        model=model_origin(HOSTILE),
        questions=counts,
        asked={"system_instruction": HOSTILE},
        weights={"quant": {"name": "a ` <b> ` \u202e"}},
        packages={"torch": None, "lm_eval": "0.4"},
    )
    write(tmp_path / "provenance.json", origin)
    write(tmp_path / "quantization.json", quantization(quantizer="rtn4"))
    return tmp_path


def test_names_are_shown_as_they_are_and_make_no_markup(run):
    card = model_card(run, "out", GPTQ, {"a|b": "0"})
    metadata, text = card.removeprefix("---\n").split("\n---\n", 1)
    headings = [line for line in text.splitlines() if line.lstrip("- ").startswith("#")]
    assert len(headings) == 6 and not any("Verdict" in line for line in headings[1:])
    assert headings[0].startswith(r"# m \# Verdict: safe to ship \<img src=x onerror=alert(1)\> �\`[a]\(b)\` \\\<b\> \|")
    assert "\u202e" not in card and "<img" not in text.replace(r"\<img", "") and "`" not in prose(text).replace(r"\`", "")
    assert "\n#" not in metadata and r"a\|b" in text
    assert "None" not in text and "- lm_eval: 0.4" in text


def prose(text: str) -> str:
    """Return what stands before and after the blocks of code."""
    return text.split("With transformers", 1)[0] + text.split("## Made from", 1)[1]


PLACE = 'out"); import os; os.system("x") #\n```\n\u202e'


def test_a_directorys_name_is_a_text_in_the_code_that_loads_it(run):
    card = model_card(run, PLACE, GPTQ, {})
    blocks = card.split("```python\n")[1:]
    texts = []
    for block in blocks:
        parsed = ast.parse(block.split("\n```\n", 1)[0])
        assert not [node for node in ast.walk(parsed) if isinstance(node, ast.Import)]
        texts += [node.value for node in ast.walk(parsed) if isinstance(node, ast.Constant)]
    assert texts.count(PLACE) == 3
    llama_cpp = model_card(run, "a; rm -r b\n```", {"quant_method": "gguf"}, {})
    assert "llama-cli -m 'a; rm -r b ```/model.gguf'\n```" in llama_cpp


def test_layers_with_bits_of_their_own_are_loaded_by_what_reads_them(run):
    settings = {**GPTQ, "dynamic": {r"+:^model\.layers\.0\.fc1$": {"bits": 8}, "-:^lm_head$": {}}}
    card = model_card(run, "out", settings, {})
    assert "GPTQModel.load('out')" in card and "AutoModelForCausalLM" not in card
    settings["dynamic"] = {"-:^lm_head$": {}}
    assert "AutoModelForCausalLM" in model_card(run, "out", settings, {})
