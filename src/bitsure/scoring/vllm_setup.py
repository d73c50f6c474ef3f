"""Scoring by vLLM in this process: full precision as it is published, quantized weights in a layout that vLLM loads."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from bitsure.base.files import hash_json
from bitsure.config.schema import VLLM
from bitsure.config.server_settings import ServerSettings
from bitsure.config.vllm_settings import VllmSettings
from bitsure.models.facts import context_length
from bitsure.models.locate import Source
from bitsure.quantize.checkpoint.publish import publish
from bitsure.results.run_files import ServedOrigin
from bitsure.scoring.scored_model import version
from bitsure.scoring.served.self_test import SelfTest, mean_distance
from bitsure.scoring.served.server import Server
from bitsure.scoring.served.vllm_program import VllmProgram, installed_version
from bitsure.scoring.served_setup import LIBRARIES, ServerSetup


@dataclass(frozen=True)
class VllmSetup(ServerSetup):
    """How vLLM runs models in this process."""

    settings: VllmSettings
    dtype: str
    """The computing type, such as float32."""

    work: ClassVar = VLLM

    @override
    def key(self, quantized: bool) -> dict[str, Any]:
        return {
            "engine": VLLM,
            "dtype": self.dtype,
            "context": self.settings.context,  # which decides where prompts are cut
            "parallel": [self.settings.tensor_parallel, self.settings.pipeline_parallel],
            "libraries": {library: version(library) for library in (*LIBRARIES, "torch")} | {VLLM: installed_version()},
        }

    @override
    def start(self, source: Source, checkpoint: Path | None) -> Server:
        """Let vLLM load the model, and test what it answers as a server's answers are."""
        source.check_content()
        with tempfile.TemporaryDirectory() as folder:
            directory = _loadable(source, checkpoint, Path(folder))
            context = self.settings.context or context_length(source.path)
            program = VllmProgram(directory, self.settings, self.dtype, context, source.settings.trust_remote_code)
        test = SelfTest(program, source.name, source.load_tokenizer(), self.settings.tolerance)
        result = test.run()
        origin = ServedOrigin(
            url=program.name,
            name=source.name,
            asked_by=test.model.dialect.name,
            nondeterminism=result.nondeterminism,
            inconsistency=result.inconsistency,
            context=context,
            reference=hash_json(result.reference)[:24],
            stated=program.stated,
            in_process=True,
        )
        asked = ServerSettings(concurrency=1, prompts=self.settings.questions, tolerance=self.settings.tolerance)
        spread = max(mean_distance(result.reference, answer) for answer in result.answers)
        return Server(asked, test.model, test, result.reference, spread, origin, context, key={})


def _loadable(source: Source, checkpoint: Path | None, folder: Path) -> Path:
    """Return a directory that vLLM loads: the model's, a published checkpoint, or the weights written into `folder` as one."""
    if checkpoint is None:
        return source.path
    if (checkpoint / "config.json").is_file():
        return checkpoint
    publish(source, checkpoint, folder, f"{source.name}, quantized")
    return folder
