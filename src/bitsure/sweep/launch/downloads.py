"""What a cell has to download before its work can be told, and what is known of its model all the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from bitsure.base.byte_sizes import binary_size
from bitsure.base.errors import NotHere, UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.config.schema import VLLM, Config
from bitsure.models.facts import check_memory, own_dtype, scoring_device
from bitsure.models.load import empty_model
from bitsure.models.locate import locate_model, locate_scored, locate_tokenizer
from bitsure.models.size import parameters_of
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.check import check_model
from bitsure.quantize.libraries.prequantized import locate as locate_checkpoint
from bitsure.scoring.texts.text_files import locate_text_file
from bitsure.tasks.harness_tasks import load_tasks


def wanted(config: Config, memo: Memo) -> tuple[list[str], list[str]]:
    """Look for everything that a cell reads, one after the other.

    Args:
        config: The cell's settings.
        memo: Knows what was looked for for other cells.

    Returns:
        What is not here and would be downloaded, and what is wrong with the rest.
    """
    missing: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for look in _searches(config, memo):
        try:
            look()
        except NotHere as error:
            missing[error.wanted] = None
        except UserError as error:
            wrong[str(error)] = None
    return list(missing), list(wrong)


def _searches(config: Config, memo: Memo) -> list[Callable[[], object]]:
    model, mirror, store = config.model, config.paths.hub_mirror, Store(config.paths.store)
    quantizer = check_model(model, config.quant, config.control.seeds > 0)
    searches: list[Callable[[], object]] = [partial(memo, locate_scored, model, mirror, store, config.plan)]
    if quantizer.server:
        searches.append(partial(memo, locate_tokenizer, model, mirror, store))
    elif not quantizer.is_full_precision:
        searches.append(partial(memo, locate_model, model, mirror, store, planned=config.plan))
        searches.append(partial(memo, locate_text, config.calib, mirror, config.task, store))
        searches.append(partial(locate_checkpoint, quantizer, mirror, store))
    searches.append(partial(memo, locate_text_file, config.text, mirror, store))
    return searches + [partial(memo, load_tasks, config.task, [name], mirror) for name in config.task.names]


def known_size(config: Config, memo: Memo, on_node: bool) -> str:
    """Return a sentence on the size of a model: that of its config.json if it is here, else that of its settings if any.

    Args:
        config: The cell's settings.
        memo: That of `wanted`, which looked for the model.
        on_node: Whether the cell runs on another machine, so that this one's memory says nothing of it.

    Raises:
        UserError: If transformers builds no model from its config.json.
    """
    model, origin = config.model, "settings"
    with suppress(NotHere):
        source = memo(locate_scored, model, config.paths.hub_mirror, Store(config.paths.store), config.plan)
        parameters = parameters_of(memo(empty_model, source.path, model.trust_remote_code))
        model, origin = replace(model, parameters=parameters, full_dtype=own_dtype(model, source.path)), "config.json"
    if model.parameters is None:
        return f"Of {model.name} nothing is known: model.parameters is not given."
    import torch

    dtype, gpus = model.full_dtype or "float32", config.scoring.vllm.gpus  # 1 for other engines
    size = model.parameters * getattr(torch, dtype).itemsize
    shared = f", {binary_size(size / gpus)} on each of {gpus} GPUs" if gpus > 1 and model.server is None else ""
    sentence = f"{model.name} has {model.parameters:,} parameters by its {origin}, {binary_size(size)} in {dtype}{shared}."
    if model.server is not None or config.scoring.engine == VLLM or on_node:
        return sentence
    computing = model.dtype if model.dtype != "auto" else "float32" if scoring_device(model) == "cpu" else dtype
    try:
        check_memory(model, computing)
    except UserError as error:
        return f"{sentence} It cannot run here: {error}"
    return sentence
