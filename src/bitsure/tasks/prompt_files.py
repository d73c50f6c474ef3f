"""The prompts that a task takes from a file of prompts, or from the harness's own, by `use_prompt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval.api.task
import yaml
from lm_eval.prompts import PROMPT_REGISTRY, PromptString, get_prompt

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.opened_files import note


def note_prompt_files() -> None:
    """Let the harness read all prompts by `read_prompt` from now on, which notes the files that they are in."""
    lm_eval.api.task.get_prompt = read_prompt


def read_prompt(use_prompt: Any, dataset_name: str | None = None, subset_name: str | None = None) -> Any:
    """Return a prompt, and note the file that it is read from.

    Args:
        use_prompt: What the task's YAML has.
        dataset_name: The task's data set, whose prompts promptsource is asked for.
        subset_name: The configuration of the data set.

    Raises:
        UserError: If there is no such prompt.
    """
    file = str(use_prompt).partition(":")[0]
    if ".yaml" in file:
        note(Path(file))
    try:
        prompt = get_prompt(str(use_prompt), dataset_name, subset_name)
        if isinstance(prompt, PromptString) and not all(map(prompt.prompt_string.get, ("doc_to_text", "doc_to_target"))):
            raise ValueError("a template is missing")
    except (AttributeError, ImportError, LookupError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        own = ", ".join(f"{kind}:{name}" for kind, names in PROMPT_REGISTRY.items() for name in names)
        raise UserError(
            f"use_prompt: {use_prompt!r} names no prompt ({in_one_line(error)}). It is "
            f"FILE.yaml:NAME, where the file has the templates doc_to_text and doc_to_target at prompts: NAME:, or is one of "
            f"{own}."
        ) from error
    return _FilePrompt(use_prompt, prompt.prompt_string) if isinstance(prompt, PromptString) else prompt


class _FilePrompt(PromptString):  # type: ignore[misc]  # the harness's prompts have no types
    def __init__(self, use_prompt: str, templates: dict[str, str]) -> None:
        super().__init__(templates)
        self._use_prompt = use_prompt

    def get_answer_choices_list(self, doc: object) -> list[str]:
        """Raise UserError; the harness calls this for the choices of a document."""
        raise UserError(
            f"use_prompt: {self._use_prompt!r} has no choices, which a multiple_choice task needs. Write doc_to_text, "
            "doc_to_choice and doc_to_target into the task's YAML instead."
        )
