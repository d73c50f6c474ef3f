"""vLLM in this process: how it spreads a model over GPUs, and what it is given at one time."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.base.errors import UserError, at_least

MIN_CONTEXT = 128  # tokens, which the test before the first question needs


@dataclass
class VllmSettings:
    """How vLLM runs models in this process (scoring.engine=vllm); its kernels and log-probabilities depend on it."""

    tensor_parallel: int = 1  # GPUs that share every layer
    pipeline_parallel: int = 1  # groups of GPUs, each with a part of the layers
    ray: bool = False  # let Ray start the workers, which several machines need; false: they are processes of this machine
    memory_share: float = 0.9  # the part of each GPU's memory that it takes, from 0 to 1
    context: int | None = None  # tokens of the longest prompt; None: the model's, whose keys and values have to fit
    prefix_caching: bool = True  # keep the keys and values of prompts' beginnings, for requests that may read them
    eager: bool = False  # compile no graphs: it starts sooner and is slower
    questions: int = 256  # that it is given at one time; a run that stops loses so many at most
    tolerance: float = 0.2  # the largest difference between two of its answers about one token, nats; more is refused

    @property
    def gpus(self) -> int:
        """All GPUs that share a model."""
        return self.tensor_parallel * self.pipeline_parallel

    def __post_init__(self) -> None:
        for key in ("tensor_parallel", "pipeline_parallel", "questions"):
            at_least(f"scoring.vllm.{key}", getattr(self, key), 1)
        if self.context is not None:
            at_least("scoring.vllm.context", self.context, MIN_CONTEXT)
        if not 0 < self.memory_share <= 1:
            raise UserError(f"scoring.vllm.memory_share={self.memory_share}: a number above 0 and up to 1.")
        if not self.tolerance > 0:
            raise UserError(f"scoring.vllm.tolerance={self.tolerance}: a number above 0.")
