"""Which model suffers more: golden values, and what noise alone must not show."""

from __future__ import annotations

import numpy as np
import pytest

from bitsure.comparison import changes
from bitsure.metrics.across import heterogeneity
from bitsure.records.joining import join
from bitsure.records.parquet import write_records
from bitsure.records.record import Records, to_table
from bitsure.report import family
from bitsure.report.family import Run
from tests.builders.records import record
from tests.run.test_tracking import METRIC


def both(loss: float, seed: int, n: int = 400, first: int = 0) -> list[Records]:
    """A model in full precision and quantized, whose right answers lose `loss` in log-odds on average."""
    random = np.random.default_rng(seed)
    full = random.normal(size=(n, 2))
    quantized = full.copy()
    quantized[:, 0] -= loss + 0.2 * random.normal(size=n)

    def rows(logits) -> Records:
        return to_table([record(z - np.logaddexp.reduce(z), gold=0, doc_id=first + i) for i, z in enumerate(logits)])

    return [rows(full), rows(quantized)]


def run(name: str, *settings, **more) -> Run:
    return Run(name, changes.of(join(*both(*settings, **more)), METRIC))


def test_a_model_that_suffers_more_is_found_and_one_that_does_not_is_not():
    light, same, heavy = run("light", 0.2, 0), run("same", 0.2, 1), run("heavy", 1.0, 2)
    [(alike, n)] = family.contrasts(light, same, METRIC).values()
    [(apart, _)] = family.contrasts(light, heavy, METRIC).values()
    assert n == 400 and alike.ci_low < 0 < alike.ci_high and apart.ci_high < -0.05
    found = family.mean_changes([light, same, heavy], METRIC)["t"]
    assert apart.value == pytest.approx(found["heavy"].value - found["light"].value)
    spread = lambda *names: heterogeneity(*zip(*((found[n].value, found[n].standard_error) for n in names), strict=True))  # noqa: E731
    assert spread("light", "same", "heavy").p_value < 1e-6 < 0.01 < spread("light", "same").p_value


def test_a_contrast_is_of_the_questions_that_both_were_asked():
    whole, part = run("whole", 0.5, 0, n=400), run("part", 0.5, 0, n=100, first=300)
    [(_, n)] = family.contrasts(whole, part, METRIC).values()
    assert n == 100
    assert family.contrasts(whole, run("elsewhere", 0.5, 0, first=5000), METRIC) == {}


def test_the_command_prints_it(tmp_path, capsys):
    for name, (full, quantized) in {"a": both(0.2, 0), "b": both(1.0, 1)}.items():
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "baseline.parquet", full, {})
        write_records(tmp_path / name / "records.parquet", quantized, {})
    family.main([str(tmp_path / "a"), str(tmp_path / "b")])
    said = capsys.readouterr().out
    assert "Cochran's Q" in said and "b less a, on 400 questions: -0." in said
    with pytest.raises(SystemExit, match=r"give two or more run directories"):
        family.main([str(tmp_path / "a")])
    with pytest.raises(SystemExit, match=r"holds no baseline\.parquet and no records\.parquet"):
        family.main([str(tmp_path), str(tmp_path / "a")])
