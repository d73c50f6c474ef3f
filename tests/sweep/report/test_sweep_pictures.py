"""What a sweep's pictures are made of, from rows built by hand."""

from __future__ import annotations

from PIL import Image

from bitsure.metrics.metric_names import MACRO
from bitsure.report.charts import SCALE, WIDTH
from bitsure.sweep.report.heat_map import heat_map
from bitsure.sweep.report.pareto import ON_DISK, pareto
from bitsure.sweep.report.scale_pictures import bits_picture, scale_picture
from bitsure.sweep.report.shift_picture import shift_picture
from bitsure.sweep.report.study_row import over_tasks
from tests.builders.study_rows import study_row as row


def quantized(label: str, **changed):
    return row(quantizer=label, quantizer_label=label, **changed)


def test_runs_with_other_prompts_have_panels_and_fronts_of_their_own():
    rows = []
    for shots, better in ((0, 0.5), (3, 0.7)):
        given = {"conditions": f"task.num_fewshot={shots}", "setting": f"task.num_fewshot={shots}", "task": MACRO}
        rows += [quantized("a", size_bytes=1, value=better, **given), quantized("b", size_bytes=2, value=better - 0.1, **given)]
    picture = pareto(rows, ON_DISK)
    assert picture is not None
    assert [panel.spec["title"]["subtitle"] for panel in picture.panels] == ["task.num_fewshot=0", "task.num_fewshot=3"]
    on_front = [row.conditions for row, front in zip(picture.rows, picture.on_front, strict=True) if front]
    assert on_front == ["task.num_fewshot=0", "task.num_fewshot=3"]  # in one panel the cheapest of three shots would beat all
    assert [key.label for key in picture.keys] == ["a", "b"]


def test_what_each_run_was_asked_is_in_a_picture_over_tasks():
    """A mean over a and b, of another run over b and c, and a run of one task alone."""
    means = [
        quantized("q", task=MACRO, mean_over="a, b", setting="task.names=a,b"),
        quantized("q", task=MACRO, mean_over="b, c", setting="task.names=b,c"),
    ]
    tasks = [quantized("q", task=task) for task in "abc"]
    alone = quantized("other", task="a")
    assert over_tasks([*means, *tasks, alone]) == [*means, alone]
    assert [row.questions for row in (*means, alone)] == ["mean over a, b", "mean over b, c", "a"]


def test_a_heat_map_of_runs_with_other_tasks_has_all_tasks_and_says_that_they_have_no_common_mean():
    rows = [
        quantized("q", metric="true_label_prob", task=MACRO, mean_over="a, b", setting="task.names=a,b"),
        *(quantized("q", metric="true_label_prob", task=task) for task in "abc"),
        quantized("other", metric="true_label_prob", task="c"),
    ]
    picture = heat_map(rows)
    assert picture is not None
    [panel] = picture.panels  # one model, whose rows are its quantizers
    fields = {(one["name"], one["task"]) for one in panel.spec["data"]["values"]}
    assert fields == {("q", "a"), ("q", "b"), ("q", "c"), ("other", "c")}
    assert picture.caption.endswith("Runs were asked different tasks, so there is no column of means over tasks.")


def test_means_over_different_tasks_are_never_joined_by_a_line():
    rows = [
        quantized("q", task=task, mean_over=mean, series="s", parameters=10**k, model=f"s{k}", setting=mean)
        for k, mean_of_k in ((2, "a, b"), (4, "a, c"))
        for task, mean in ((MACRO, mean_of_k), ("a", ""))
    ]
    picture = scale_picture(rows, "accuracy")
    assert picture is not None and [panel.spec["title"]["text"] for panel in picture.panels] == ["a"]


def test_a_picture_says_what_it_shows_and_its_marks_begin_with_their_key():
    sizes = [
        quantized("q", task="t", series="s", parameters=parameters, value=value, model=f"s{parameters}")
        for parameters, value in ((10**5, 0.4), (10**6, 0.6))
    ]
    picture = scale_picture(sizes, "accuracy")
    assert picture is not None
    assert picture.finding == "Accuracy, t: q: 0.4000 at 100K, 0.6000 at 1.0M."
    svg = picture.page_panels[0].svg
    assert 'aria-label="q: s 100K, accuracy 0.4000' in svg and 'aria-label="q"' in svg
    widths = [quantized(f"q{bits}", bits_per_weight=float(bits), delta=-1 / bits, task="t") for bits in (2, 4)]
    assert bits_picture(widths, "accuracy").finding == "Change in accuracy, t: m: -0.5000 at 2.0 bits, -0.2500 at 4.0."


def test_many_quantizers_on_one_model_are_rows_of_a_heat_map_and_few_panels():
    rows = [
        quantized(f"q{k:02d}", metric=metric, task="t", value=0.1)
        for k in range(14)
        for metric in ("true_label_prob", "harm_stratum_1", "instability_stratum_1")
    ]
    changes, shift = heat_map(rows), shift_picture(rows)
    assert changes is not None and shift is not None
    [panel] = changes.panels
    assert len({field["name"] for field in panel.spec["data"]["values"]}) == 14
    assert len(shift.panels) == 12 and shift.caption.endswith("The first 12 of 14 quantizers are drawn; the CSV has all.")
    assert len({row.quantizer for row in shift.rows}) == 14


def test_the_legend_of_many_quantizers_is_no_wider_than_the_panels_and_names_all(tmp_path):
    labels = [f"quantizer-{number}, calib.name=pocket" for number in range(40)]
    picture = pareto([quantized(label, size_bytes=1 + place, task=MACRO) for place, label in enumerate(labels)], ON_DISK)
    drawn = picture.save(tmp_path)
    assert [label for label in labels if label not in drawn.chart.svg] == []
    with Image.open(drawn.path) as png:
        assert png.width < SCALE * 3 * (WIDTH + 60)  # axes included
