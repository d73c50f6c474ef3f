"""A GGUF file's model as a directory that transformers loads: decoded once, and kept in the store."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.out_of_memory import is_out_of_memory, memory_errors
from bitsure.base.store import Store, hash_each
from bitsure.base.versions import installed_version
from bitsure.models.gguf.architecture import check_architecture, kept_name_maps, tensor_names, unused_metadata
from bitsure.models.gguf.gemma import read_gemma
from bitsure.models.gguf.gguf_header import GgufFile, read_gguf
from bitsure.models.gguf.rotary import positions_read, read_rope
from bitsure.models.gguf.tensor_types import summarize_types
from bitsure.models.gguf.vocabulary import load_gguf_tokenizer, unknown_splitting
from bitsure.models.gguf_origin import read_origin, write_origin
from bitsure.models.load import BUILD_ERRORS, check_complete
from bitsure.results.gguf import FLOATS, GgufOrigin

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FORMAT = 3  # of the directory; one more whenever our code would write another one
MODEL = "model"  # a folder of its own, because the files in it identify the model, and the store's manifest lies beside it
LIBRARIES = ("gguf", "transformers", "tokenizers")


def unpack(path: Path, store: Store) -> Path:
    """Return a directory with a GGUF file's model in full precision, its tokenizer, and `gguf.json`.

    The directory comes from the store, or is written there first. Warnings name what of the file is not used.

    Args:
        path: The file.
        store: Keeps the directory.

    Raises:
        UserError: If the file is damaged, or transformers does not load it.
    """
    gguf = read_gguf(path)
    check_architecture(gguf)
    libraries = {library: installed_version(library) for library in LIBRARIES}
    made_from = {"format": FORMAT, "gguf": hash_each([path], store)[0], "libraries": libraries}
    with memory_errors(f"reading {path}"):
        directory = store.ensure("gguf", made_from, partial(_write, gguf, str(made_from["gguf"]))) / MODEL
    _warn(path, directory)
    return directory


def _warn(path: Path, directory: Path) -> None:
    """Warn about what is not as it seems, each time that the directory is used."""
    origin = read_origin(directory)
    assert origin is not None
    types = {name: kind for name, kind in origin.tensor_types.items() if name not in (*FLOATS, "Q8_0")}
    if types:
        held = ", ".join(f"{name} ({len(kind.tensors)} tensors)" for name, kind in types.items())
        log.warning("%s is quantized: %s. Given as the model, it stands for full precision", path.name, held)
    for line in origin.not_used:
        log.warning("%s: %s", path.name, line)


def _write(gguf: GgufFile, sha256: str, entry: Path) -> None:
    import torch
    from safetensors.torch import save_file

    directory = entry / MODEL
    directory.mkdir()
    tokenizer = load_gguf_tokenizer(gguf)
    model = _load(gguf)
    types = {tensor.type.name for tensor in gguf.tensors.values()}
    half = {"F16": torch.float16, "BF16": torch.bfloat16}
    stored = next((half[name] for name in half if name in types and types <= FLOATS), torch.float32)
    tensors: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in places:  # a tied tensor has one of its names
            continue
        places.add(tensor.data_ptr())
        if not tensor.isfinite().all():
            raise UserError(f"{gguf.path}: {name} holds NaN or infinite values: no score can be had from them. Bring it again.")
        tensors[name] = _narrowed(tensor, stored)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    model.config.dtype = stored
    if hasattr(model.config, "quantization_config"):  # the loader's own note, of no use once blocks are decoded
        del model.config.quantization_config
    model.config.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    size = gguf.path.stat().st_size
    not_used = _not_used(gguf, model)
    types_of_tensors = summarize_types(gguf)
    write_origin(directory, GgufOrigin(sha256=sha256, bytes=size, tensor_types=types_of_tensors, not_used=not_used))


def _load(gguf: GgufFile) -> Any:
    """Return the model as transformers decodes it, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    how = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}  # an error names them
    config = _from_file(gguf, AutoConfig)
    size = gguf.metadata.get(f"{gguf.architecture}.attention.key_length")
    if isinstance(size, int) and hasattr(config, "head_dim"):  # which transformers reads of some architectures alone
        config.head_dim = size
    read_rope(gguf, config)
    read_gemma(gguf, config)
    with kept_name_maps():
        model, loading = _from_file(gguf, AutoModelForCausalLM, config=config, **how)
    check_complete(gguf.path, loading)
    return model


def _from_file(gguf: GgufFile, auto_class: Any, **settings: Any) -> Any:
    """Return what a class of transformers loads of the file. Raises UserError if it does not load it."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return auto_class.from_pretrained(gguf.path.parent, gguf_file=gguf.path.name, local_files_only=True, **settings)
    except (NotImplementedError, StrictDataclassError, *BUILD_ERRORS) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{gguf.path}: transformers' GGUF loader does not load it ({in_one_line(error)}). If llama.cpp does, "
            "give the model as a Hugging Face directory: model=local model.path=DIR"
        ) from error


def _narrowed(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in a type if that holds every value exactly, otherwise as it is."""
    import torch

    narrowed = tensor.to(dtype)
    return narrowed if torch.equal(narrowed.float(), tensor.float()) else tensor


def _not_used(gguf: GgufFile, model: Any) -> list[str]:
    """Return a sentence for each part of the file that transformers' loader leaves out."""
    from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS

    lines, positions = [], positions_read(gguf, model.config)
    known = gguf.tensors.keys() if gguf.architecture in GGUF_ARCHS else tensor_names(gguf, model).keys()
    if dropped := [name for name in gguf.tensors if name not in known and name not in positions]:
        lines.append(f"transformers' loader drops the tensors {', '.join(dropped)}, which llama.cpp computes with")
    if settings := unused_metadata(gguf, model.config.to_dict(), positions):
        lines.append(f"transformers' loader leaves out {', '.join(settings)}")
    if rule := unknown_splitting(gguf):
        lines.append(f"text may be cut into other words than in llama.cpp: tokenizer.ggml.pre={rule} is not known here")
    return lines
