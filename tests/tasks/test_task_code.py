"""What a task folder would run is said before it runs, and runs only where it is trusted; templates reach for nothing."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path

import pytest

from bitsure.base.errors import UserError
from bitsure.config.schema import TaskSettings
from tests.builders.data_sets import ASKED_TASK, question_rows

FIELDS = ASKED_TASK.replace("org/asked", "json\ndataset_kwargs: {data_files: {test: asked.jsonl}}")
CODE = """
open({ran!r}, "w")
from lm_eval.api.task import ConfigurableTask
def text(doc):
    return doc["q"]
class Own(ConfigurableTask):
    def __init__(self, config):
        super().__init__(config={{key: value for key, value in config.items() if key != "class"}})
"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder of tasks with Python code that leaves a file `ran`."""
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, question_rows("one"))))
    (tmp_path / "code.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    return tmp_path


def load(folder: Path, name: str = "asked", **settings: bool) -> list[str]:
    """Return the questions of a task of the folder."""
    from bitsure.tasks.harness_tasks import load_tasks

    task = TaskSettings(name="own", names=[name], include_path=str(folder), **settings)
    [loaded] = load_tasks(task, [name], None)[name].tasks.values()
    return [loaded.doc_to_text(doc) for doc in loaded.eval_docs]


def in_yaml(folder: Path, template: str) -> None:
    (folder / "asked.yaml").write_text(FIELDS.replace("'{{q}}'", template))


def in_an_included_file(folder: Path, template: str) -> None:
    (folder / "common").mkdir()
    (folder / "common" / "code.py").write_text((folder / "code.py").read_text())
    (folder / "common" / "text").write_text(f"doc_to_text: {template}\n")
    (folder / "asked.yaml").write_text("include: common/text\n" + FIELDS.replace("doc_to_text: '{{q}}'\n", ""))


def in_the_entry_of_a_group(folder: Path, template: str) -> None:
    in_yaml(folder, "'{{q}}'")
    entry = f"{{group: inner, task: [{{task: asked, doc_to_text: {template}}}]}}"
    (folder / "all.yaml").write_text(f"group: all\ntask: [{entry}]\n")


def as_a_class(folder: Path, template: str) -> None:
    (folder / "asked.yaml").write_text("class: !function code.Own\n" + FIELDS)


@pytest.mark.parametrize("write", [in_yaml, in_an_included_file, in_the_entry_of_a_group, as_a_class])
def test_code_is_named_and_not_run_unless_it_is_trusted(folder, write, caplog):
    write(folder, "!function code.text")
    name = "all" if write is in_the_entry_of_a_group else "asked"
    with pytest.raises(UserError, match=rf"{name} of .* would run Python code .*(text|Own) of .*code\.py.* task\.trust=true"):
        load(folder, name)
    assert not (folder / "ran").exists()
    with caplog.at_level(logging.WARNING):
        assert load(folder, name, trust=True) == ["one 0", "one 1", "one 2"]
    assert "code.py" in caplog.text and (folder / "ran").exists()


def test_installed_modules_and_metrics_that_are_scripts_are_code_too(folder):
    in_yaml(folder, "!function os.system")
    with pytest.raises(UserError, match="system of the module os"):
        load(folder)
    (folder / "asked.yaml").write_text(FIELDS.replace("metric: acc", "metric: ./code.py, hf_evaluate: true"))
    with pytest.raises(UserError, match=r"\./code\.py of HF Evaluate"):
        load(folder)


SCRIPTS = "metric_list: [{metric: ./code.py, hf_evaluate: true}]"


@pytest.mark.parametrize(
    ("group", "runs"),
    [
        ("group: all\ntask: [asked]\naggregate_metric_list: [{metric: mine}]\n", []),
        ("group: all\ntask: [{task: asked, process_results: null}]\n", ["./code.py of HF Evaluate"]),
        ("group: all\ntask: [{group: inner, task: [{task: asked, metric_list: [{metric: mine}]}]}]\n", ["mine of HF Evaluate"]),
    ],
)
def test_metrics_that_the_harness_does_not_load_are_no_scripts(folder, group, runs):
    from bitsure.tasks.task_code import HARNESS, task_code
    from bitsure.tasks.task_names import task_manager

    bbq = HARNESS / "bbq" / "bbq_multiple_choice.yaml"
    (folder / "plain.yaml").write_text(f"include: {bbq}\ntask: plain\n")
    (folder / "asked.yaml").write_text(f"include: {bbq}\ntask: asked\n{SCRIPTS}\n")
    (folder / "all.yaml").write_text(group)
    manager = task_manager(str(folder), include_defaults=False)
    assert task_code(manager, "plain").runs == [] and task_code(manager, "all").runs == runs


@pytest.mark.slow
def test_the_harness_own_tasks_are_trusted():
    from bitsure.tasks.task_code import task_code
    from bitsure.tasks.task_names import task_manager

    for name in ("hellaswag", "mmlu", "scrolls_quality"):
        assert task_code(task_manager(None, include_defaults=True), name).runs == []


@pytest.mark.parametrize(
    "template",
    [
        "{{ q.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% for i in range(999999) %}{% endfor %}{{ q }}",
        "{{ options.append('c') or q }}",
        "{{ 10**(10**9) }}",
        "{{ q.index('no such text') }}",
        "{{ q | no_such_filter }}",
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_a_template_may_read_the_document_and_no_more(folder, template, trust):
    in_yaml(folder, f'"{template}"')
    with pytest.raises(UserError, match=r"the template .* of a task"):
        load(folder, trust=trust)


@pytest.mark.parametrize("template", ["{{ image.save(path) }}", "{{ image['save'](path) }}", "{{ '{0.save}'.format(image) }}"])
def test_a_template_calls_no_method_of_an_image(tmp_path, template):
    from PIL import Image

    from bitsure.tasks.templates import apply_template

    with pytest.raises(UserError, match=r"attribute 'save' of '.*' object is unsafe"):
        apply_template(template, {"image": Image.new("L", (1, 1)), "path": str(tmp_path / "x.png")})
    assert not list(tmp_path.iterdir())


def test_the_methods_of_plain_values_and_of_jinja_stay():
    from bitsure.tasks.templates import apply_template

    doc = {"q": "A b", "day": datetime(2020, 1, 2), "facts": {"x": 1}}
    template = (
        "{{ q.lower().split()[1] }}{{ day.strftime('%Y') }}{{ '{0}-{1}'.format(q, 1) }}"
        "{% for k, v in facts.items() %}{{ k }}{{ v }}{{ loop.cycle('c') }}{% endfor %}"
        "{% set n = namespace(t=dict(a=2)) %}{{ n.t.a }}{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m('z') }}"
    )
    assert apply_template(template, doc) == "b2020A b-1x1c2[z]"


def test_ordinary_templates_give_what_the_harness_gives(folder):
    in_yaml(folder, "\"{{ q | regex_replace('one', 'two') }}{% if options %} {{ options[0].upper() }}{% endif %}\\n\"")
    assert load(folder) == ["two 0 A\n", "two 1 A\n", "two 2 A\n"]


def test_a_module_that_ones_own_code_looks_for_in_vain_is_an_error_of_that_code(folder):
    in_yaml(folder, "!function code.text")
    (folder / "code.py").write_text("import a_module_of_nobody\n")
    with pytest.raises(ModuleNotFoundError, match="a_module_of_nobody"):
        load(folder, trust=True)


def test_a_template_is_compiled_once_for_all_documents(monkeypatch):
    from bitsure.tasks import templates

    compiled = []
    from_string = templates.SANDBOX.from_string
    monkeypatch.setattr(templates.SANDBOX, "from_string", lambda template: compiled.append(template) or from_string(template))
    texts = [templates.apply_template("{{ q }} of this test", {"q": question}) for question in ("one", "two")]
    assert texts == ["one of this test", "two of this test"] and compiled == ["{{ q }} of this test"]
