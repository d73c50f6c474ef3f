"""Tasks of multiple choice, written as files of the harness."""

from __future__ import annotations

import json
import random
from pathlib import Path


def write_task(folder: Path, name: str, questions: int, length: int) -> None:
    """Write a task of two choices after so many random characters."""
    rng = random.Random(0)
    folder.mkdir(exist_ok=True)
    texts = ["".join(rng.choices("abcdefgh ", k=length)).strip() for _ in range(questions)]
    rows = [{"q": f"{text} {i}", "options": ["cat", "dog"], "gold": i % 2} for i, text in enumerate(texts)]
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}\ntest_split: test\n"
        "doc_to_text: '{{q}}'\noutput_type: multiple_choice\ndoc_to_choice: options\ndoc_to_target: gold\n"
        "metric_list: [{metric: acc}]\n"
    )
