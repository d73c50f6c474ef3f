"""What transformers' GGUF loader knows of an architecture: the names of tensors there, and how rows are ordered."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bitsure.base.errors import UserError
from bitsure.models.gguf.gguf_header import GgufFile

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

NO_DECODERS = {"general", "tokenizer", "t5", "t5encoder", "umt5"}  # keys of transformers' table that are no decoder


def check_architecture(gguf: GgufFile) -> None:
    """Raise UserError unless transformers' GGUF loader knows the architecture."""
    known = _known()
    if _plain(gguf.architecture) not in known:
        raise UserError(
            f"{gguf.path} is of the architecture {gguf.architecture}, which transformers' GGUF loader does not know. It knows "
            f"{', '.join(sorted(known.values()))}. Give the model as a Hugging Face directory: model=local model.path=DIR"
        )


def tensor_names(gguf: GgufFile, model: nn.Module) -> dict[str, str]:
    """Return the name in a GGUF file → the name in a transformers model, for all tensors that both have names for.

    Args:
        gguf: The file.
        model: The model, with or without weights.

    Raises:
        UserError: If the architecture's tensors are stored otherwise than rows in another order.
    """
    from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    if gguf.architecture in GGUF_ARCHS and gguf.architecture not in _table():
        raise UserError(
            f"{gguf.path}: the blocks of the architecture {gguf.architecture} cannot be paired with a parent's layers, because "
            "llama.cpp stores their columns in another order. model=gguf reads the file by itself."
        )
    try:
        with kept_name_maps():
            names: dict[str, str] = get_gguf_hf_weights_map(model, _processor(gguf, model), gguf.architecture)
    except NotImplementedError as error:
        raise UserError(f"{gguf.path}: the package gguf has no names for {gguf.architecture} ({error}).") from error
    return names


@contextmanager
def kept_name_maps() -> Iterator[None]:
    """Keep the package gguf's table of names, which transformers makes again for each module: half a minute for 62 blocks."""
    import gguf

    usual = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = functools.cache(usual)
    try:
        yield
    finally:
        gguf.get_tensor_name_map = usual


def missing_tensors(gguf: GgufFile, names: Mapping[str, str], model: nn.Module) -> list[str]:
    """Return the model's parameters that a file has no tensor for; a tied one needs one of its names.

    Args:
        gguf: The file.
        names: What `tensor_names` returned.
        model: The model.
    """
    present = {own for name, own in names.items() if name in gguf.tensors}
    return sorted(name for name, _ in model.named_parameters() if name not in present)


def values_as_in_model(gguf: GgufFile, name: str, model: nn.Module) -> NDArray[np.float32]:
    """Return a tensor decoded, and rearranged as the transformers model has it (for Gemma's norms, less one)."""
    return np.array(_as_in_model(gguf, name, gguf.values(name), model))  # not a view of the file


def values_as_in_file(gguf: GgufFile, name: str, values: NDArray[np.float32], model: nn.Module) -> NDArray[np.float32]:
    """Return a vector of the transformers model as the file has it (Gemma's norms plus one); its order is the same."""
    shift = _as_in_model(gguf, name, np.zeros_like(values), model)
    return values - np.asarray(shift, np.float32)


def row_order(gguf: GgufFile, name: str, model: nn.Module) -> NDArray[np.int64]:
    """Return the row of the file's matrix (out, in) that is each row of the model's, for moving blocks undecoded.

    Raises:
        UserError: If the model's matrix is not the file's with its rows in another order.
    """
    rows, columns = gguf.tensors[name].shape
    numbered = np.broadcast_to(np.arange(rows)[:, None], (rows, columns))
    moved = _as_in_model(gguf, name, numbered, model)
    if not (moved == moved[:, :1]).all():
        moved = moved.T  # transformers' Conv1D holds the matrix (in, out)
    if moved.shape != (rows, columns) or not (moved == moved[:, :1]).all():
        raise UserError(f"{gguf.path}: transformers moves more than the rows of {name}, so that its blocks are lost.")
    order: NDArray[np.int64] = moved[:, 0]
    return order


def unused_metadata(gguf: GgufFile, config: Mapping[str, Any], read: Container[str]) -> list[str]:
    """Return the settings of the architecture that transformers' loader leaves out, with their values.

    Settings that its config has anyway, such as the size of a head, are not among them, nor keys that were `read` besides.
    """
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    if gguf.architecture in GGUF_CONFIG_ARCHS:
        return []
    used = _table()[_known()[_plain(gguf.architecture)]]
    same = {"attention.key_length": "head_dim", "attention.value_length": "head_dim", "rope.dimension_count": "head_dim"}
    same |= {setting: setting for setting in ("vocab_size", "attn_logit_softcapping", "final_logit_softcapping")}
    prefix, unused = f"{gguf.architecture}.", []
    for key, value in gguf.metadata.items():
        setting = key.removeprefix(prefix)
        if not key.startswith(prefix) or key in read or setting in used:
            continue
        if setting not in same or config.get(same[setting]) != value:
            unused.append(f"{key}={value if not isinstance(value, (list, array)) else f'[{len(value)} values]'}")
    return unused


def _table() -> dict[str, Any]:
    from transformers.modeling_gguf_pytorch_utils import GGUF_TO_TRANSFORMERS_MAPPING

    table = cast("dict[str, Any]", GGUF_TO_TRANSFORMERS_MAPPING["config"])
    return table


def _known() -> dict[str, str]:
    """Return the architectures that transformers loads, by their names without signs: it spells them in two ways."""
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    return {_plain(name): name for name in (*GGUF_CONFIG_ARCHS, *_table()) if name not in NO_DECODERS}


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "")


def _as_in_model(gguf: GgufFile, name: str, values: NDArray[Any], model: nn.Module) -> NDArray[Any]:
    """Return an array of a tensor's shape, rearranged as transformers rearranges the tensor."""
    # GPT-2's head is put aside among the tensors that are loaded already.
    processed = _processor(gguf, model).process(weights=values, name=name, parsed_parameters={"tensors": {}})
    rearranged: NDArray[Any] = processed.weights
    return rearranged


def _processor(gguf: GgufFile, model: nn.Module) -> Any:
    """Return what transformers rearranges tensors of the architecture with."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    settings: Any = model.config
    processor: Any = TENSOR_PROCESSORS.get(gguf.architecture, TensorProcessor)
    return processor(config=settings.to_dict())
