"""Which model suffers more: golden values, and what noise alone must not show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from bitsure import family, records
from bitsure.errors import UserError
from bitsure.family import Run
from bitsure.metrics.statistics import Estimate
from tests.conftest import record
from tests.test_tracking import METRIC


def run(name: str, loss: float, seed: int, n: int = 400, first: int = 0) -> Run:
    """A model whose right answers lose `loss` in log-odds on average."""
    random = np.random.default_rng(seed)
    full = random.normal(size=(n, 2))
    quantized = full.copy()
    quantized[:, 0] -= loss + 0.2 * random.normal(size=n)

    def rows(logits) -> records.Records:
        return records.table([record(z - np.logaddexp.reduce(z), gold=0, doc_id=first + i) for i, z in enumerate(logits)])

    return Run(name, rows(full), rows(quantized))


def known(value: float, error: float) -> Estimate:
    return Estimate(value, error, None, "normal", -np.inf)


def test_cochrans_q_by_hand():
    # weights 1, 4, 4: their mean is (2 + 4 + 2) / 9
    values, errors = np.array([2.0, 1.0, 0.5]), np.array([1.0, 0.5, 0.5])
    middle = 8 / 9
    q = (2 - middle) ** 2 + 4 * (1 - middle) ** 2 + 4 * (0.5 - middle) ** 2
    found = family.heterogeneity([known(v, e) for v, e in zip(values, errors, strict=True)])
    assert found.q == pytest.approx(q) and found.p_value == pytest.approx(chi2.sf(q, 2))
    assert found.i_squared == pytest.approx(max(0, 1 - 2 / q))
    assert family.heterogeneity([known(1.0, 0.1)]) is None


def test_a_model_that_suffers_more_is_found_and_one_that_does_not_is_not():
    light, same, heavy = run("light", 0.2, 0), run("same", 0.2, 1), run("heavy", 1.0, 2)
    [(alike, n)] = family.contrasts(light, same, METRIC).values()
    [(apart, _)] = family.contrasts(light, heavy, METRIC).values()
    assert n == 400 and alike.interval(0.95)[0] < 0 < alike.interval(0.95)[1] and apart.interval(0.95)[1] < -0.05
    found = family.changes([light, same, heavy], METRIC)["t"]
    assert apart.value == pytest.approx(found["heavy"].value - found["light"].value)
    assert family.heterogeneity(list(found.values())).p_value < 1e-6
    assert family.heterogeneity([found["light"], found["same"]]).p_value > 0.01


def test_a_contrast_is_of_the_questions_that_both_were_asked():
    whole, part = run("whole", 0.5, 0, n=400), run("part", 0.5, 0, n=100, first=300)
    [(_, n)] = family.contrasts(whole, part, METRIC).values()
    assert n == 100
    with pytest.raises(UserError, match="No question of the quantized run"):
        family.contrasts(whole, run("elsewhere", 0.5, 0, first=5000), METRIC)


def test_the_command_prints_it(tmp_path, capsys):
    for one in (run("a", 0.2, 0), run("b", 1.0, 1)):
        (tmp_path / one.name).mkdir()
        records.write(tmp_path / one.name / "baseline.parquet", one.baseline, {})
        records.write(tmp_path / one.name / "records.parquet", one.quantized, {})
    family.main([str(tmp_path / "a"), str(tmp_path / "b")])
    said = capsys.readouterr().out
    assert "Cochran's Q" in said and "b less a, on 400 questions: -0." in said
    with pytest.raises(SystemExit, match=r"give two or more run directories"):
        family.main([str(tmp_path / "a")])
    with pytest.raises(SystemExit, match=r"holds no baseline\.parquet and no records\.parquet"):
        family.main([str(tmp_path), str(tmp_path / "a")])
