"""Work in a process of its own, whose memory is limited once it has imported the libraries.

The limit is on data (RLIMIT_DATA): memory that is private and may be written, as weights, hidden states and what the C library
holds freed are. It binds at once, in any process. A limit on address space also counts what threads and libraries reserve and
never touch, here more than the model; resident memory has no limit that a process can set for itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.builders.forked_commands import Commands
from tests.builders.tokenizers import byte_tokenizer

# Arguments: what is done, the bytes allowed besides those that are held already (0: any number), then overrides.
PROGRAM = """
import json, sys
import pyarrow as pa
import transformers.models.llama.modeling_llama  # so that no import needs memory later
from pathlib import Path
from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.config.paths import PROJECT
from bitsure.quantize.make import ensure_quantized
from bitsure.records import read_records, write_records
from bitsure.records.record import SCHEMA
from bitsure.run.preparation import check, load_tasks, prepare
from bitsure.sweep.launch.dry_run import pieces_of
from bitsure.sweep.launch.estimate import WorkEstimator
sys.path.insert(0, str(PROJECT))
from tests.builders.composing import composed

work, allowed, overrides = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
config, memo = composed(*overrides), Memo()
prepared = prepare(config, Path("libraries.log"), memo)
check(prepared, memo)
load_tasks(prepared, memo)
kind, estimator = {"score": "records", "quantize": "weights"}[work], WorkEstimator(prepared.store, memo)
estimate = max(estimator.estimate(piece).memory for piece in pieces_of(prepared, config) if piece.kind == kind)
pa.set_cpu_count(1)
pa.set_io_thread_count(1)
write_records(Path("records.parquet"), SCHEMA.empty_table(), {})
read_records(Path("records.parquet"), may_be_empty=True)  # starts threads, whose stacks are memory too: it hangs without


def held(what):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(what + ":"))


if allowed:
    import resource
    resource.setrlimit(resource.RLIMIT_DATA, (held("VmData") + allowed,) * 2)
Path("/proc/self/clear_refs").write_text("5")
before, told = held("VmRSS"), {}
try:
    if work == "score":
        scorer, model = prepared.scorer, prepared.full_precision
        write_records(Path("records.parquet"), scorer.score(model, None, "full precision"), scorer.kept.keys(model))
    else:
        proof = ensure_quantized(prepared.plan, prepared.store, prepared.log_file).proof
        told = {"reported": proof.peak_memory_bytes - before}
except UserError as error:
    told = {"refused": str(error)}
print(json.dumps(told | {"estimate": estimate, "peak": held("VmHWM"), "rise": held("VmHWM") - before}))
"""


def work_in(commands: Commands, folder: Path, work: str, allowed: int, *overrides: str) -> dict[str, Any]:
    """Score or quantize a model in a folder.

    Args:
        commands: Forks the process.
        folder: Where it works, with a store of its own; records.parquet is there afterwards.
        work: `score` or `quantize`.
        allowed: Bytes that it may hold besides those of Python and the libraries; 0: any number.
        overrides: As on a command line.

    Returns:
        `peak`: the most resident memory, bytes; `estimate`: what plan=true says of it; `rise`: by how much it rose at the most;
        `reported`: the same by quantization.json; `refused`: the error, where it ended with one.
    """
    folder.mkdir()
    printed = commands.run_python(folder, "-c", PROGRAM, work, str(allowed), f"paths.store={folder / 'store'}", *overrides)
    told: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return told


def save_deep(path: Path, width: int = 256, blocks: int = 32) -> tuple[int, int]:
    """Write a random Llama of many blocks into several files; return the bytes of its weights, and of a block's."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": blocks, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=256, **sizes))
    model.save_pretrained(path, max_shard_size="20MB")
    byte_tokenizer().save_pretrained(path)
    whole, block = (sum(4 * part.numel() for part in of.parameters()) for of in (model, model.model.layers[0]))
    return whole, block
