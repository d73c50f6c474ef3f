"""The dashboard of a real offline run: every panel has keys that were logged, and a stand-in server takes it whole."""

from __future__ import annotations

import json

import pytest
import yaml

from bitsure.base.errors import UserError
from bitsure.config.paths import PROJECT
from bitsure.config.schema import resolved
from bitsure.records.record import to_table
from bitsure.records.text_units import text_units, with_units
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.results import Status, write
from bitsure.run.logged_keys import write_keys
from bitsure.run.tracking import track_run
from bitsure.sweep.dashboard import making
from bitsure.sweep.dashboard.dashboard_sections import SECTIONS, questions_table
from bitsure.sweep.dashboard.panel import CONFIG, Charts, Columns, TrackedSweep, matching
from tests.builders.answers import paired_runs
from tests.builders.loopback_wandb import serve
from tests.builders.marks import library
from tests.builders.offline_runs import read_back
from tests.builders.settings import MARGINS, METRIC
from tests.builders.texts import TASK, token_rows
from tests.builders.wandb_runs import log_all, tracked_config

pytestmark = pytest.mark.usefixtures("blank_pictures")

library("wandb_workspaces")
OF_FULL = {"model": "m", "weights": None, "dtype": "float32", "text": {"sha256": "a"}}
TOKENS = token_rows([0, 0, 1, 1], [0] * 4)
COMPARED = TOKENS.set_column(TOKENS.num_columns - 1, "kl_divergence", [[0.1] * 4])
SHOWN = [(section, panel) for section in SECTIONS for panel in section.shown]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Return a sweep of one cell whose run was logged offline, and what was logged.

    The keys of its summary run are written by hand; the tests of a sweep's report compare them with a real one's.
    """
    folder = tmp_path_factory.mktemp("sweeps") / "small"
    cell = folder / "0-m-rtn4"
    cell.mkdir(parents=True)
    config = tracked_config()
    (cell / "config.yaml").write_text(yaml.safe_dump(resolved(config)))
    write(cell / "status.json", Status(state="running"))
    texts = (text_units(rows, {TASK: of}) for rows, of in ((TOKENS, OF_FULL), (COMPARED, OF_FULL | {"weights": "rtn4"})))
    full, quantized = (with_units(to_table(side), text) for side, text in zip(paired_runs(30)[:2], texts, strict=True))
    report = build(cell, quantized, full, METRIC, MARGINS, About("title"))
    with track_run(config, resolved(config), cell, "small", cell / "log") as tracker:
        log_all(tracker, report, quantized, full, cell)
    write_keys(folder, [key for section, panel in SHOWN if section.of_sweep for key in panel.keys])
    return folder, read_back(cell)


def test_every_panel_of_a_cell_has_keys_that_a_run_logged(sweep):
    _, stored = sweep
    known = stored["keys"] | set(stored["panels"])
    missing = [
        key for section, panel in SHOWN if not section.of_sweep for key in panel.keys if not _is_known(key, stored, known)
    ]
    assert missing == []
    for section, panel in SHOWN:
        if isinstance(panel, Charts) and not section.of_sweep:
            drawn = stored["panels"][matching(panel.keys[0], known)[0]]["panel_config"]
            assert (drawn["panelDefId"], drawn["fieldSettings"]) == (panel.preset.name, panel.preset.fields)


def _is_known(key: str, stored: dict, known: set) -> bool:
    if not key.startswith(CONFIG):
        return bool(matching(key, known))
    value = stored["config"]
    for part in key.removeprefix(CONFIG).split("."):
        value = value[part]
    return True


def test_a_server_is_given_a_workspace_and_a_report_with_every_panel(sweep, commands, tmp_path, monkeypatch):
    folder, _ = sweep
    with serve() as server:
        for name, value in server.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        printed = commands.run_python(PROJECT, "-m", "bitsure", "dashboard", str(folder))
    report, workspace = server.views
    assert printed.splitlines() == [
        f"workspace {server.url}/me/bitsure?nw={workspace['name'].removeprefix('nw-').removesuffix('-v')}",
        f"report    {server.url}/me/bitsure/reports/What-quantization-does-in-small--VmlldzoxMjM=",
    ]
    assert (workspace["entityName"], workspace["projectName"], workspace["displayName"]) == ("me", "bitsure", "bitsure small")
    section = json.loads(workspace["spec"])["section"]
    [runs] = section["runSets"]
    assert '"small"' in json.dumps(runs["filters"]) and "summary:verdict" in runs["runFeed"]["columnPinned"]
    panels = [panel for part in section["panelBankConfig"]["sections"] for panel in part["panels"]]
    grids = [block for block in json.loads(report["spec"])["blocks"] if block["type"] == "panel-grid"]
    in_report = [panel for grid in grids for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]]
    for written in (json.dumps(panels), json.dumps(in_report)):
        for section, key in (
            (section, key) for section, panel in SHOWN if not isinstance(panel, Columns) for key in panel.keys
        ):
            task = TASK if section.title == "Texts" else "t"
            assert key.replace("config.provenance.", "config:provenance.value.").replace("<task>", task) in written, key
    drawn = {panel["config"]["panelDefId"] for panel in panels if "panelDefId" in panel["config"]}
    assert drawn == set(server.charts) and {name.rpartition("-")[0] for name in drawn} == {
        "me/bitsure-lines",
        "me/bitsure-forest",
    }
    assert b"k" * 40 not in (folder / "libraries.log").read_bytes()


def test_without_a_login_or_the_package_the_command_says_what_to_do(sweep, monkeypatch):
    monkeypatch.setattr(making, "is_logged_in", lambda: False)
    with pytest.raises(UserError, match=r"not logged in to Weights & Biases\. Run `wandb login`"):
        making.make_dashboard(sweep[0])
    monkeypatch.setattr(making, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"pip install -e '\.\[dashboard\]'"):
        making.make_dashboard(sweep[0])


def _tracked(*keys: str, presets=None) -> TrackedSweep:
    return TrackedSweep("me", "bitsure", "small", keys, presets or {})


def test_a_server_without_presets_of_ones_own_draws_with_its_own():
    forest = next(panel for _, panel in SHOWN if panel.question == "How far from the margins?")
    [own], [builtin] = (
        forest.panels(_tracked("forest/nll", presets=presets)) for presets in ({"wandb/bar/v0": "me/bitsure-forest-1"}, {})
    )
    assert own.chart_name == "me/bitsure-forest-1" and own.chart_fields["ci_low"] == "ci_low"
    assert (builtin.chart_name, builtin.chart_fields) == ("wandb/bar/v0", {"label": "task", "value": "change"})


def test_what_no_run_logged_has_no_panel():
    panels = {panel.question: panel for _, panel in SHOWN}
    assert panels["Does confidence match accuracy?"].panels(_tracked("reliability")) == []
    assert panels["Is the cheapest to load the least sure?"].panels(_tracked("confidence/mean")) == []
    task_keys = {"accuracy/mean/change", "accuracy/mean/change_ci_low", "accuracy/a/change", "accuracy/b/change"}
    assert matching("accuracy/<task>/change", task_keys) == ["accuracy/a/change", "accuracy/b/change"]
    text_keys = {"perplexity/text/c4/gptq", "perplexity/text/c4/gptq/change", "perplexity/text/c4/gptq/change_p_adjusted"}
    assert matching("perplexity/<task>", text_keys) == ["perplexity/text/c4/gptq"]


def test_a_sweep_that_was_not_logged_is_refused(tmp_path):
    cell = tmp_path / "0-m"
    cell.mkdir()
    (cell / "config.yaml").write_text(yaml.safe_dump(resolved(tracked_config("disabled"))))
    with pytest.raises(UserError, match="none of its runs was logged to W&B"):
        making.make_dashboard(tmp_path)


def test_the_documentation_lists_every_panel():
    assert questions_table() in (PROJECT / "docs" / "wandb.md").read_text(encoding="utf-8")
