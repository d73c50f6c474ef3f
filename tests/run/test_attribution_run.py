"""Attribution from the settings to the report, and from the store again."""

from __future__ import annotations

import pytest

from bitsure import results
from bitsure.base.errors import UserError
from bitsure.config.schema import AttributionSettings
from bitsure.report.command import report_run
from bitsure.results import Attribution
from bitsure.run import pipeline
from bitsure.scoring.attribution import part_effects, part_passes
from tests.builders.sweep_commands import compose_errors, compose_valid

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def settings(tiny_model, own_tasks, calib_file, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))
    model = ["model=local", f"model.path={tiny_model}", "quant=rtn3", "tracking.mode=disabled", "attribution.measure=true"]
    tasks = ["task.names=[tiny_pets,tiny_last]", f"task.include_path={own_tasks}", "metric.resamples=100"]
    return [*model, *tasks, "calib=text", f"calib.path={calib_file}", "calib.nsamples=8", "calib.seqlen=64"]


def test_a_run_says_which_layers_lose_and_an_interrupted_one_goes_on(settings, tmp_path, monkeypatch, capsys):
    measured = []

    def stop_at_questions(*arguments):
        raise KeyboardInterrupt

    def counted(pair, batch):
        measured.append(batch)
        return part_passes.part_divergences(pair, batch)

    cells = [compose_valid(*settings, f"hydra.sweep.dir={tmp_path / name}")[0] for name in ("first", "second")]
    monkeypatch.setattr(part_effects, "part_divergences", counted)
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(part_effects, "log_probabilities", stop_at_questions)
        pipeline.run(cells[0].config, cells[0].directory)
    batches = len(measured)
    assert batches > 0
    pipeline.run(cells[0].config, cells[0].directory, labels=cells[0].labels)
    assert len(measured) == batches  # what the interrupted run had measured
    attribution = results.read(cells[0].directory / "attribution.json", Attribution)
    assert attribution.text_name == "held-out text of text" and attribution.questions > 0
    assert {part.name for part in attribution.parts if part.kind == "block"} == {f"model.decoder.layers.{k}" for k in (0, 1)}
    kept = attribution.kept_layers
    losses = {name: layer.kl_divergence for name, layer in attribution.layers.items()}
    assert kept.layers == sorted(losses, key=losses.get, reverse=True)[:3]
    assert kept.bits_per_weight > kept.bits_per_weight_before
    assert kept.kl_divergence < attribution.quantized.kl_divergence
    page = (cells[0].directory / "report.html").read_text()
    shown = " ".join(capsys.readouterr().out.split())
    assert f"quant@quant.like=rtn3 quant.recipe={cells[0].directory.absolute()}/recipe.yaml" in shown
    assert "quant@quant.like=rtn3 quant.recipe=RUN_DIR/recipe.yaml" in page
    assert f"Recipe: {kept.layers[0]}, " in page and "Which layers does the loss come from?" in page
    pipeline.run(cells[1].config, cells[1].directory)
    assert len(measured) == batches
    assert results.read(cells[1].directory / "attribution.json", Attribution) == attribution
    report_run(cells[1].directory, out=tmp_path / "again")
    assert kept.layers[0] in (tmp_path / "again" / "report.html").read_text()


def test_a_model_on_disk_and_numbers_out_of_range_are_refused(settings, tmp_path):
    [error] = compose_errors(*settings, "model.device_map=auto", f"hydra.sweep.dir={tmp_path}")
    assert "attribution.measure exchanges layers of two models in memory" in error
    for bad in ({"scorings": float("nan")}, {"scorings": 0}, {"tokens": 1}, {"questions": 0}):
        with pytest.raises(UserError, match=f"attribution.{next(iter(bad))}"):
            AttributionSettings(**bad)


def test_sizes_of_what_is_not_measured_are_refused(settings, tmp_path):
    [error] = compose_errors(*settings[:4], *settings[5:], "attribution.tokens=100", f"hydra.sweep.dir={tmp_path}")
    assert "Add attribution.measure=true" in error
