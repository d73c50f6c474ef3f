"""Scoring by vLLM in this process: full precision as it is published, quantized weights unpacked or in a published layout."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json
from bitsure.base.versions import installed_version
from bitsure.config.schema import VLLM, ScoringSettings
from bitsure.config.server_settings import ServerSettings
from bitsure.models.facts import context_length
from bitsure.models.locate import Source
from bitsure.quantize.checkpoint.publish import NotExportable, publish, write_unpacked
from bitsure.quantize.layouts.compressed_tensors import CompressedTensorsLayout
from bitsure.results.run_files import ServedOrigin
from bitsure.scoring.served.self_test import SelfTest, mean_distance
from bitsure.scoring.served.server import Server
from bitsure.scoring.served.vllm_program import ModelFiles, VllmProgram, installed_vllm
from bitsure.scoring.served_setup import LIBRARIES, ServerSetup


@dataclass(frozen=True)
class VllmSetup(ServerSetup):
    """How vLLM runs models in this process."""

    scoring: ScoringSettings
    dtype: str
    """The computing type, such as float32."""
    log_file: Path
    """Where vLLM and its processes write."""

    work: ClassVar = VLLM

    @override
    def key(self, quantized: bool) -> dict[str, Any]:
        settings = self.scoring.vllm
        return {
            "engine": VLLM,
            "dtype": self.dtype,
            "context": settings.context,  # which decides where prompts are cut
            "parallel": [settings.tensor_parallel, settings.pipeline_parallel],
            "eager": settings.eager,
            "prefix_caching": settings.prefix_caching,
            "tolerance": settings.tolerance,  # of records that a stricter one refuses
            "packed_kernels": self._packed(quantized),
            "libraries": {library: installed_version(library) for library in (*LIBRARIES, "torch")} | {VLLM: installed_vllm()},
        }

    @override
    def start(self, source: Source, checkpoint: Path | None, stack: ExitStack) -> Server:
        """Let vLLM load the model, and test what it answers as a server's answers are."""
        settings = self.scoring.vllm
        context = settings.context or context_length(source.path)
        label = f"{source.name}, quantized" if checkpoint else source.name
        with tempfile.TemporaryDirectory() as folder:
            try:
                directory = self._loadable(source, checkpoint, Path(folder))
            except NotExportable as error:
                raise UserError(f"scoring.engine=vllm: {error.reason} scoring.engine=local runs it.") from error
            packed = self._packed(checkpoint is not None)
            model = ModelFiles(directory, source.path, label, context, source.settings.trust_remote_code, packed)
            program = stack.enter_context(VllmProgram(model, settings, self.dtype, self.log_file))
        test = SelfTest(program, source.name, source.load_tokenizer(), settings.tolerance)
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
        asked = ServerSettings(prompts=settings.questions, tolerance=settings.tolerance)
        spread = max(mean_distance(result.reference, answer) for answer in result.answers)
        return Server(asked, test.model, test, result.reference, spread, origin, context, key={})

    def _packed(self, quantized: bool) -> bool:
        """Return whether vLLM gets packed weights."""
        return quantized and not self.scoring.dequantize

    def _loadable(self, source: Source, checkpoint: Path | None, folder: Path) -> Path:
        """Return a directory that vLLM loads: what is here already, or the quantized model written into `folder`."""
        label = f"{source.name}, quantized,"
        if checkpoint is None:
            source.check_content()
            return source.path
        if self.scoring.dequantize:
            write_unpacked(source, checkpoint, folder, label, self.dtype)
            return folder
        if (checkpoint / "config.json").is_file():  # a published layout
            return checkpoint
        publish(source, checkpoint, folder, label, CompressedTensorsLayout.quant_method)
        return folder
