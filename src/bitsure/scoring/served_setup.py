"""A server in the place of a model in memory: for the harness it is a config and a tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from typing_extensions import override

from bitsure.base.versions import installed_version
from bitsure.config.schema import SERVED
from bitsure.models.load import empty_model
from bitsure.models.locate import Source
from bitsure.models.size import parameters_of
from bitsure.scoring.engine import Engine
from bitsure.scoring.scored_model import LoadedModel, ModelSetup
from bitsure.scoring.served.served_engine import ServedEngine
from bitsure.scoring.served.server import Server

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIBRARIES = ("lm_eval", "datasets", "transformers", "tokenizers")  # that decide which tokens are sent


class ServerSetup(ModelSetup):
    """How a model is scored that another program runs."""

    @abstractmethod
    def start(self, source: Source, checkpoint: Path | None, stack: ExitStack) -> Server:
        """Return the program, tested; arguments are those of `load`."""

    @override
    def load(self, source: Source, checkpoint: Path | None, stack: ExitStack) -> LoadedModel:
        """Return the model's config and tokenizer, and the program that has its weights."""
        import torch
        from transformers import AutoConfig

        trust = source.settings.trust_remote_code
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=trust)
        if hasattr(config, "quantization_config"):  # which the harness would look for a library for
            del config.quantization_config
        parameters = empty_model(source.path, trust).parameters
        stand_in = SimpleNamespace(config=config, device=torch.device("cpu"), parameters=parameters)
        model, tokenizer = cast("PreTrainedModel", stand_in), source.load_tokenizer()
        return LoadedModel(model, tokenizer, None, self.start(source, checkpoint, stack))

    @override
    def engine(self, loaded: LoadedModel, max_length: int) -> Engine:
        server = loaded.server
        assert server is not None  # `load` has started it
        return ServedEngine(server, server.context or max_length, parameters_of(loaded.model))

    @override
    def generator(self, loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        return None


@dataclass(frozen=True)
class ServedSetup(ServerSetup):
    """How a server's model is scored."""

    server: Server

    work: ClassVar = SERVED

    @override
    def key(self, quantized: bool) -> dict[str, Any]:
        libraries = {library: installed_version(library) for library in LIBRARIES}
        return {"libraries": libraries, "context": self.server.context}  # which decides where prompts are cut

    @override
    def start(self, source: Source, checkpoint: Path | None, stack: ExitStack) -> Server:
        return self.server
