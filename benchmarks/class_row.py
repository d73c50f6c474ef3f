"""One causal class of transformers as a small random model: is it scored, how, and what quantizes it?"""

from __future__ import annotations

import copy
import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from benchmarks.tiny_models import build_small, small_config
from bitsure.base.errors import UserError, in_one_line
from bitsure.base.json_files import read_object
from bitsure.base.store import Store
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.model import ModelSettings
from bitsure.config.schema import ScoringSettings
from bitsure.models.load import BUILD_ERRORS, check_files
from bitsure.models.locate import locate_model
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.check import check_plan
from bitsure.quantize.make import ensure_quantized
from bitsure.quantize.plan import Plan
from bitsure.quantize.quantizer import Quantizer
from bitsure.scoring.local.pass_choice import TOLERANCE
from bitsure.scoring.local.passes import WAYS
from bitsure.scoring.requests import Request, Scored, input_tokens
from bitsure.scoring.scored_model import LocalSetup
from tests.builders.requests import branching_questions
from tests.builders.tokenizers import TEXT, byte_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

CONTEXT = 256
# What the engine logs → how it scores.
SCORED = {message: way for way, message in WAYS.items()}
PLAIN = "prefixes are not shared: "


@dataclass
class ClassRow:
    """What one class does."""

    family: str
    """Its `model_type`."""
    name: str
    """The class."""
    scoring: str = ""
    """A way of the engine (`trees`, `copies`, `tokens`) or `plain`; otherwise why it is not scored, a sentence."""
    why: str = ""
    """Why prefixes are not shared in one pass, and then why not by copies."""
    reference: str = "float64"
    """The type of the plain passes that scores are compared with."""
    off: float = 0.0
    """The largest difference of a log-likelihood from them, in tolerances of float32."""
    own_off: float = 0.0
    """The same of the model's own plain float32 passes, where `off` is above 1."""
    quantized: dict[str, str] = field(default_factory=dict)
    """Quantizer → the share of parameters that it quantizes, such as 80%; otherwise why it does not, a sentence."""
    crashes: list[str] = field(default_factory=list)
    """What ended in an error that is no sentence."""
    seconds: float = 0.0
    """What the row took of a processor's time."""

    @property
    def scored(self) -> bool:
        """Whether the class is scored."""
        return self.scoring in (*SCORED.values(), "plain")

    @property
    def equality(self) -> str:
        """What scores are equal to: the reference, or only the model's own float32 passes; empty if to neither."""
        if self.scored and self.off <= 1:
            return self.reference
        return "float32" if self.scored and self.off <= 1.5 * self.own_off else ""

    def share(self, quantizer: str) -> str | None:
        """Return the share of parameters that a quantizer quantizes, such as 80%; None if it does not."""
        share = self.quantized.get(quantizer, "")
        return share if share.endswith("%") else None


def study(family: str, name: str, quantizers: dict[str, Quantizer], folder: Path) -> ClassRow:
    """Return the row of a class; files go to a folder."""
    row, path, begun = ClassRow(family, name), folder / family, time.process_time()
    logging.getLogger("bitsure").setLevel(logging.INFO)  # as in a run, whose refusals say that its log has the error
    config = small_config(family)
    try:
        build_small(family).half().save_pretrained(path)
    except BUILD_ERRORS:  # of transformers' own code: the row says what a run of such a model ends with
        config.save_pretrained(path)
        save_file({"weight": torch.zeros(1)}, path / "model.safetensors")
    if config.model_type != read_object(path / "config.json")["model_type"]:
        config.save_pretrained(path)  # of the whole, such as a model of images and text, as it is published
    byte_tokenizer().save_pretrained(path)
    row.scoring = _attempt(row, "scoring", lambda: _score(row, path))
    for quantizer, settings in quantizers.items():
        row.quantized[quantizer] = _attempt(row, quantizer, lambda given=settings: _quantize(path, given, folder))
    row.seconds = round(time.process_time() - begun, 1)
    return row


def general(row: ClassRow, sentence: str) -> str:
    """Return a refusal without the names and numbers that differ from class to class."""
    sentence = re.sub(r"/\S*?/store/\S+", "the checkpoint", re.sub(r"https?://[^\s']+", "…", sentence))
    family = re.escape(row.family)
    sentence = re.sub(rf"\S*/{family}\b|\b{family}\b|\b{row.name}\b", "the model", sentence)
    sentence = re.sub(r"^quant=\S+: ", "", sentence)
    sentence = re.sub(r"\b\w+(\.\w+){2,}|\b\w+\.\w+_proj", "…", sentence)
    sentence = re.sub(r"…(,? (and )?…)+( and \d+ more)?", "…", sentence)
    sentence = re.sub(r"`[^`]*` not found", "`…` not found", sentence)
    sentence = re.sub(r"\bof the \d+ linear", "of the linear", sentence)
    return re.sub(r"\b\d+ (of the|weights|layers|lists)", r"some \1", sentence)[:400]


def _attempt(row: ClassRow, what: str, work: Callable[[], str]) -> str:
    try:
        return work()
    except UserError as error:
        return "refused: " + general(row, " ".join(str(error).split()))
    except Exception as error:  # whatever it is, the table has to say so
        row.crashes.append(f"{what}: {in_one_line(error)}")
        logging.getLogger(__name__).exception("%s: %s", row.family, what)
        return "crashed"


def _score(row: ClassRow, path: Path) -> str:
    """Return how a model is scored, after comparing its log-likelihoods with those of plain float64 passes."""
    setup = LocalSetup(ScoringSettings(), "float32")
    check_files(path)
    loaded = setup.load(locate_model(ModelSettings(path=str(path)), None), None)
    context = min(CONTEXT, getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None) or CONTEXT)
    engine = setup.engine(loaded, context)
    with _messages() as messages:
        asked = _few_shot_questions(context)
        scored = engine.score(asked)
    setup.generator(loaded, byte_tokenizer()).limits()  # A run asks for them whatever its tasks are.
    way = next((SCORED[message] for message in messages if message in SCORED), "plain")
    row.why = "; ".join(dict.fromkeys(message.partition(": no: ")[2] for message in messages if ": no: " in message))
    for others in (list(branching_questions().values())[::4], _long_questions(context)):
        scored += engine.score(others)
        asked += others
    try:
        exact = _plainly(_exact_model(loaded.model), asked)
    except RuntimeError:  # the family's code makes float32 tensors of its own
        exact, row.reference = _plainly(loaded.model, asked), "float32"
    row.off = _largest_difference(exact, scored)
    if row.off > 1:
        row.own_off = _largest_difference(exact, _plainly(loaded.model, asked))
    return way


def _few_shot_questions(context: int) -> list[Request]:
    """Return choices of questions that begin with the same examples."""
    rng = random.Random(6)
    examples, draw = [rng.randrange(10, 250) for _ in range(context // 2)], lambda n: [rng.randrange(10, 250) for _ in range(n)]
    questions = [[*examples, *draw(4 + q)] for q in range(5)]
    return [(question, draw(1 + choice)) for question in questions for choice in range(4)]


def _long_questions(context: int) -> list[Request]:
    """Return a few choices after as many tokens as there is room for: more than a sliding window has."""
    rng = random.Random(5)
    shared = [rng.randrange(10, 250) for _ in range(context - 16)]
    return [([*shared, *[20 + q] * (3 + q)], [7, 30 + c]) for q in range(2) for c in range(2)]


def _exact_model(model: PreTrainedModel) -> PreTrainedModel:
    exact = copy.deepcopy(model).double()
    if exact._can_set_experts_implementation():
        exact.set_experts_implementation("eager")  # the usual product of grouped experts takes no float64
    return exact


@torch.inference_mode()
def _plainly(model: PreTrainedModel, requests: Sequence[Request]) -> list[Scored]:
    """Score each request by a pass of its own."""
    scored = []
    for context, continuation in requests:
        logits = model(input_ids=torch.tensor([input_tokens((context, continuation))]), use_cache=False).logits[0]
        logprobs = logits[len(context) - 1 :].double().log_softmax(-1)
        scored.append(Scored([float(of[token]) for of, token in zip(logprobs, continuation, strict=True)], False))
    return scored


def _largest_difference(exact: Sequence[Scored], scored: Sequence[Scored]) -> float:
    absolute, relative = TOLERANCE["float32"]
    pairs = [(of_exact.logprob, other.logprob) for of_exact, other in zip(exact, scored, strict=True)]
    return max(abs(value - expected) / (absolute + relative * abs(expected)) for expected, value in pairs)


def _quantize(path: Path, quant: Quantizer, folder: Path) -> str:
    """Return the share of parameters that a quantizer quantizes."""
    text = folder / "calib.txt"
    if not text.is_file():
        text.write_text("\n\n".join(f"{i} {TEXT}" for i in range(200)), encoding="utf-8")
    calib = CalibSettings(name="text", path=str(text), nsamples=8, seqlen=64)
    store = Store(folder / "store")
    plan = Plan(locate_model(ModelSettings(path=str(path)), None), quant, calib, locate_text(calib, None), "float32")
    check_plan(plan, store)
    return f"{ensure_quantized(plan, store, folder / 'log').proof.parameter_share:.0%}"


@contextmanager
def _messages() -> Iterator[list[str]]:
    """Collect what the engine logs."""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler, log = Handler(), logging.getLogger("bitsure.scoring")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        log.removeHandler(handler)
