"""What changed in each question: the same means as the comparison's, and the same questions told apart in every run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitsure.base.errors import UserError
from bitsure.comparison import compare
from bitsure.comparison.changes import (
    CHANGE_METRICS,
    answer_changes,
    before_changes,
    in_common,
    read_changes,
    write_changes,
)
from bitsure.records.joining import join
from tests.builders.answers import paired_runs
from tests.builders.records import record
from tests.builders.settings import METRIC


def of(full, quantized):
    return answer_changes(join(full, quantized), METRIC)


def test_their_means_are_the_comparisons(tmp_path):
    full, quantized, _ = paired_runs(50)
    write_changes(tmp_path / "changes.parquet", of(full, quantized))
    found, compared = read_changes(tmp_path / "changes.parquet", "t"), compare(full, quantized, METRIC)["t"]
    for name in CHANGE_METRICS:
        assert found.values[name].mean() == pytest.approx(compared[name].value)
    assert found.cluster is None and (np.diff(found.question.astype(float)) > 0).all()


def test_they_are_what_is_added_to_the_values_before():
    full, quantized, _ = paired_runs(50)
    before, after = (before_changes(join(first, quantized), METRIC)["t"].values for first in (full, quantized))
    changes = of(full, quantized)["t"].values
    assert all(np.allclose(before[name] + changes[name], after[name]) for name in CHANGE_METRICS)


def test_the_order_of_rows_does_not_matter():
    full, quantized, _ = paired_runs(50)
    one, other = of(full, quantized)["t"], of(full[::-1], quantized[::-1])["t"]
    assert np.array_equal(one.question, other.question)
    assert np.array_equal(one.values["true_label_prob"], other.values["true_label_prob"])


def test_equal_hashes_are_two_questions_told_apart_by_doc_id():
    both = [record([-1.0 - i, -1.0], doc_id=i, doc_hash="d", prompt_hash="p", target_hash="t") for i in range(3)]
    assert len(set(of(both, both)["t"].question.tolist())) == 3


def test_clusters_are_numbered_alike_whatever_the_order(tmp_path):
    rows = [record([-1.0, -2.0], doc_id=i, cluster=f"passage {i // 2}") for i in range(20)]
    one, other = of(rows, rows)["t"], of(rows[::-1], rows[::-1])["t"]
    assert np.array_equal(one.cluster, other.cluster) and one.cluster.max() == 9
    write_changes(tmp_path / "changes.parquet", {"t": one})
    assert np.array_equal(read_changes(tmp_path / "changes.parquet", "t").cluster, one.cluster)


def test_only_common_questions_are_contrasted():
    full, quantized, _ = paired_runs(50)
    whole, part = of(full, quantized)["t"], of(full[30:], quantized[30:])["t"]
    left, right = in_common(whole, part)
    assert len(left.question) == 20 and np.array_equal(left.question, right.question)
    assert np.array_equal(left.values["accuracy"], right.values["accuracy"])


def test_tasks_are_read_one_at_a_time(tmp_path):
    both = {task: of(*paired_runs(n, task=task)[:2])[task] for task, n in (("a", 5), ("b", 7))}
    write_changes(tmp_path / "changes.parquet", both)
    assert [len(read_changes(tmp_path / "changes.parquet", task).question) for task in "ab"] == [5, 7]
    (tmp_path / "changes.parquet").write_bytes((tmp_path / "changes.parquet").read_bytes()[:100])
    with pytest.raises(UserError, match=r"changes\.parquet cannot be read as changes"):
        read_changes(tmp_path / "changes.parquet", "a")


@pytest.mark.parametrize("damage", ["missing", "a column less", "no number", "a question twice"])
def test_changes_that_are_none_are_refused(tmp_path, damage):
    file = tmp_path / "changes.parquet"
    write_changes(file, of(*paired_runs(5)[:2]))
    table = pq.read_table(file)
    task = table["task"][0].as_py()
    match damage:
        case "missing":
            file.unlink()
        case "a column less":
            pq.write_table(table.drop_columns(["cluster"]), file)
        case "no number":
            pq.write_table(table.set_column(3, "true_label_prob", pa.array([None] * 5, pa.float64())), file)
        case "a question twice":
            pq.write_table(pa.concat_tables([table, table]), file)
    with pytest.raises(UserError, match=r"changes\.parquet cannot be read as changes"):
        read_changes(file, task)
