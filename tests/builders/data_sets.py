"""Data sets as a mirror holds them."""

from __future__ import annotations

import json
from pathlib import Path


def write_data_set(mirror: Path, repository: str, splits: dict[str, list[dict]], configuration: str = "default") -> None:
    """Write a data set of one configuration, its splits as JSON lines."""
    folder = mirror / "datasets" / repository
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits]
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {configuration}\n  data_files:\n{''.join(files)}---\n")
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


ASKED_TASK = (  # a task `asked` of the data set org/asked
    "task: asked\ndataset_path: org/asked\ntest_split: test\noutput_type: multiple_choice\n"
    "doc_to_text: '{{q}}'\ndoc_to_choice: options\ndoc_to_target: gold\nmetric_list: [{metric: acc}]\n"
)


def question_rows(word: str, n: int = 3) -> list[dict]:
    """Rows of the data set org/asked."""
    return [{"q": f"{word} {i}", "options": ["a", "b"], "gold": i % 2} for i in range(n)]
