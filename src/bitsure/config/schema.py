"""Every setting: dataclasses that Hydra fills from conf/, with the values that each may have.

A default stands in one place. If options of conf/ decide a setting, it has none here; otherwise its default stands here and not
in conf/. No torch here: composing a config must stay quick.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from bitsure.base.errors import UserError, at_least, one_of
from bitsure.config.calib_settings import MIN_SEQLEN, CalibSettings
from bitsure.config.derived_tasks import check_derivations
from bitsure.config.metric import MetricSettings
from bitsure.config.model import ModelSettings
from bitsure.config.open_settings import OpenSettings
from bitsure.config.paths import project_path
from bitsure.config.quantizers import QuantizerSettings
from bitsure.config.retrieval_settings import RetrievalSettings
from bitsure.config.server_settings import ServerSettings
from bitsure.config.text import TextSettings
from bitsure.config.vllm_settings import VllmSettings

VLLM, SERVED = "vllm", "served"  # of scoring.engine


@dataclass
class ControlSettings:
    """The noise control: models with noise of the quantizer's output error, scored with the quantized one."""

    seeds: int = MISSING  # how many noisy models are scored, 19 or more; 0: no control
    scale: float = 1.0  # the noise's output error ÷ the quantizer's, for noise that does more or less to the answers

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise UserError(
                f"control.scale={self.scale}: a finite number above 0; 1 is noise of the quantizer's own output error."
            )
        if self.seeds != 0:
            at_least("control.seeds", self.seeds, 19, " (a p-value of .05 needs as many), or 0 for none")


@dataclass
class TaskSettings:
    """Which of the harness's tasks, by their names there."""

    name: str = MISSING  # what the selection is called
    names: list[str] = MISSING  # the harness's tasks, groups or tags, such as [arc_easy,arc_easy@typos]; task=none has none
    include_path: str | None = None  # a folder of one's own task YAML
    trust: bool = False  # run the Python code that YAML of that folder names; false: it is refused
    num_fewshot: int | None = None  # examples before each question; None: the task's own number
    limit: Any = None  # the first questions of each task only: a number, or a fraction below 1; None: all. Texts: text.limit
    seed: int = 1234  # draws the few-shot examples, and what NAME@typos and the like change; the harness's default
    exclude_question: bool = True  # no question stands among its own few-shot examples; false: as the harness draws them
    chat_template: bool = False  # format prompts by the tokenizer's chat template, few-shot examples as earlier turns
    system_instruction: str | None = None  # text before every prompt; with a chat template, its system turn
    add_bos: bool | None = None  # whether prompts begin with the BOS token; None: as the tokenizer does, the harness's default
    score_bos: bool = False  # whole texts: score the BOS that a tokenizer puts before them, as the harness does
    samples: int = 0  # written answers: how many more are drawn of each question, to see how many agree
    p_true: bool = False  # written answers: ask the model whether its answer is true
    preference: bool = False  # written answers: let full precision read the quantized model's, and say which it finds likelier
    open: OpenSettings = field(default_factory=OpenSettings)
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)

    def __post_init__(self) -> None:
        if not self.names and self.name != "none":
            raise UserError("task.names=[]: name at least one task, such as 'task.names=[arc_easy]'.")
        if len(set(self.names)) < len(self.names):
            raise UserError(f"task.names={self.names}: a task is named twice. Name each once.")
        check_derivations(self.names)
        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise UserError(f"task.include_path={self.include_path}: no such directory.")
        is_count = isinstance(self.limit, int) and not isinstance(self.limit, bool) and self.limit >= 1
        if self.limit is not None and not is_count and not (isinstance(self.limit, float) and 0 < self.limit < 1):
            raise UserError(
                f"task.limit={self.limit}: must be a whole number of questions, 1 or more, or a fraction of them between 0 and "
                "1; leave it out to score every question."
            )
        if self.num_fewshot is not None:
            at_least("task.num_fewshot", self.num_fewshot, 0)
        at_least("task.samples", self.samples, 0)

    def questions_of(self, n: int) -> int:
        """Return how many of a task's n questions are asked; a fraction is rounded up, as the harness does."""
        if self.limit is None:
            return n
        return math.ceil(n * self.limit) if self.limit < 1 else min(n, int(self.limit))


@dataclass
class ScoringSettings:
    """How the model is run; the numbers are the same either way, within the rounding of its type."""

    engine: str = "local"  # what runs models that have no model.url or quant.url: local (bitsure's own) or vllm; served: none
    share: bool = True  # run text that questions share once; false: one plain pass for each
    dequantize: bool = True  # unpack quantized weights once, which is faster; false: packed kernels
    vllm: VllmSettings = field(default_factory=VllmSettings)

    def __post_init__(self) -> None:
        one_of("scoring.engine", self.engine, ("local", VLLM, SERVED))


@dataclass
class CompressSettings:
    """How far the quantized codes compress (Mao et al. 2024), and what that means for loading: compressibility.json."""

    measure: bool = False  # measure how far the codes compress, which takes about as long as rounding to nearest
    codes: int = 16_777_216  # the most that are measured of a model's weights, and of its activations; 0: nothing is measured
    tokens: int = 512  # of calibration text whose activations are measured; 0: no activations
    seed: int = 0  # draws the rows that are measured of a larger model
    bandwidth: float = 500.0  # MB/s of the disk or link that a model is loaded over

    def __post_init__(self) -> None:
        at_least("compress.codes", self.codes, 0)
        at_least("compress.tokens", self.tokens, 0)
        if not 0 < self.bandwidth < math.inf:
            raise UserError(f"compress.bandwidth={self.bandwidth}: megabytes a second, a finite number above 0, such as 500.")


@dataclass
class AttributionSettings:
    """Which blocks and layers the loss of fidelity comes from: attribution.json."""

    measure: bool = False  # quantize and restore each block and each type of layers alone, on a sample of text and questions
    scorings: float = 3.0  # the most that all of it costs, in scorings of the run's text and questions by one model
    tokens: int = 8192  # the most tokens of the text's sample
    questions: int = 200  # the most questions of the sample

    def __post_init__(self) -> None:
        if not 0 < self.scorings < math.inf:
            raise UserError(f"attribution.scorings={self.scorings}: a finite number above 0, such as 3.")
        at_least("attribution.tokens", self.tokens, MIN_SEQLEN)
        at_least("attribution.questions", self.questions, 1)


@dataclass
class VerdictSettings:
    """What loss is small enough to ship: a model is non-inferior if the interval of each mean loss lies within its margin."""

    strict: bool = MISSING  # exit with an error unless non-inferior over the tasks
    accuracy_margin: float = MISSING  # the largest loss of accuracy to ship
    nll_margin: float = MISSING  # the largest rise of the NLL to ship, nats
    calibration_error_margin: float = MISSING  # the largest rise of the debiased calibration error to ship

    def __post_init__(self) -> None:
        for key in ("accuracy_margin", "nll_margin", "calibration_error_margin"):
            if not 0 < getattr(self, key) < math.inf:
                raise UserError(f"verdict.{key}={getattr(self, key)}: a finite number above 0, such as 0.01.")


@dataclass
class TrackingSettings:
    """Weights & Biases."""

    mode: str = MISSING  # offline: kept here, `wandb sync` sends it; online: sent at once; disabled: no W&B run
    project: str = "bitsure"  # where W&B files the runs
    entity: str | None = None  # the W&B user or team; None: the one that is logged in
    group: str | None = None  # of the runs in W&B; None: the sweep's directory in a sweep, else the model's name
    name: str | None = None  # of the run in W&B; None: model, quantizer, tasks, calibration text and what else is set
    tags: list[str] = field(default_factory=list)  # of the run in W&B, beside those for its model, quantizer and tasks
    notes: str | None = None  # what W&B shows as the run's description

    def __post_init__(self) -> None:
        one_of("tracking.mode", self.mode, ("offline", "online", "disabled"))
        if "" in self.tags:
            raise UserError(f"tracking.tags={self.tags}: a tag is empty. Leave it out.")
        if refused := [letter for letter in "/\\#?%:" if letter in self.project]:
            raise UserError(
                f"tracking.project={self.project}: W&B takes no {' '.join(refused)} in a project's name. "
                "A team is given as tracking.entity."
            )


@dataclass
class PathSettings:
    """Where results are stored, and where files of the hub are copied."""

    store: str = MISSING  # weights and records by what made them; the same work is done once
    hub_mirror: str | None = None  # a folder with datasets/<org>/<name> and models/<org>/<name>, read before the hub

    def __post_init__(self) -> None:
        if self.hub_mirror is not None and not Path(self.hub_mirror).is_dir():
            raise UserError(f"paths.hub_mirror={self.hub_mirror}: no such directory.")


@dataclass
class SweepSettings:
    """How the cells of a sweep are run; results do not depend on it."""

    time_limit: float | None = None  # seconds after which a cell is stopped, without waiting for other cells; None: no limit
    skip_not_installed: bool = False  # skip cells whose quantizer needs a library that is not installed; else nothing starts
    skip_repeated: bool = False  # skip cells that only calibration text, which their quantizer does not read, tells from others
    pages: bool = True  # write each cell's report.html and figures/; `bitsure report RUN_DIR` makes them later
    gpus: int | None = 1  # GPUs of a cell's own on a machine with several; None: every cell sees all

    def __post_init__(self) -> None:
        if self.time_limit is not None and not self.time_limit > 0:
            raise UserError(f"sweep.time_limit={self.time_limit}: seconds above 0, or null for none.")
        if self.gpus is not None:
            at_least("sweep.gpus", self.gpus, 1, ", or null to let every cell see all")


@dataclass
class Config:
    """All settings of a run."""

    model: ModelSettings = MISSING
    quant: QuantizerSettings = MISSING
    control: ControlSettings = MISSING
    calib: CalibSettings = MISSING
    task: TaskSettings = MISSING
    text: TextSettings = field(default_factory=TextSettings)
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    compress: CompressSettings = field(default_factory=CompressSettings)
    attribution: AttributionSettings = field(default_factory=AttributionSettings)
    metric: MetricSettings = MISSING
    verdict: VerdictSettings = MISSING
    tracking: TrackingSettings = MISSING
    paths: PathSettings = MISSING
    sweep: SweepSettings = field(default_factory=SweepSettings)
    plan: bool = False  # show the cells, what the store has of them and an estimate of the rest, and run nothing


def resolved(config: Config) -> dict[str, Any]:
    """Return the settings on which a run's results depend, as plain data, for config.yaml and W&B."""
    kind = type(config.quant)
    own_class = {} if kind.__module__.startswith("bitsure.") else {"class": f"{kind.__module__}.{kind.__qualname__}"}
    settings = asdict(config) | {"quant": own_class | asdict(config.quant) | {"name": config.quant.name}}
    _leave_out_unused(settings, config)
    return {key: _plain(value) for key, value in settings.items() if key not in ("server", "sweep", "plan")}


def _leave_out_unused(settings: dict[str, Any], config: Config) -> None:
    """Remove what later versions added and this run does not use: config.yaml stays as it was before."""
    model, by_vllm = config.model, config.scoring.engine == VLLM
    used = {
        ("metric", "own"): bool(config.metric.own),
        ("control", "scale"): config.control.scale != 1,
        ("model", "url"): model.url is not None,
        ("model", "served_name"): model.served_name is not None,
        ("scoring", "engine"): by_vllm,
        ("scoring", "vllm"): by_vllm,
        ("calib", "all_experts"): config.calib.all_experts,
        **{("tracking", key): bool(getattr(config.tracking, key)) for key in ("name", "tags", "notes")},
    }
    for (section, key), is_used in used.items():
        if not is_used:
            del settings[section][key]
    for section, is_used in (("text", config.text.is_scored), ("attribution", config.attribution.measure)):
        if not is_used:
            del settings[section]


def _plain(value: Any) -> Any:
    """Return a setting as YAML and JSON have it; a user's own class may have paths and enumerations."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def register() -> None:
    """Make the schemas and the `${project:…}` resolver known to Hydra; conf/*.yaml build on them."""
    # conf/hydra/launcher has the plugins' names, so that the error for a missing one can say what installs it.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    schema = OmegaConf.structured(Config)
    # A quantizer's file names its class, which is imported when the settings are validated.
    schema.quant = QuantizerSettings
    OmegaConf.set_struct(schema.quant, False)
    schema.metric = OmegaConf.structured(MetricSettings)
    OmegaConf.set_struct(schema.metric, False)  # so that metric.own.mine=… needs no + on the command line
    ConfigStore.instance().store(name="schema", node=schema)
    OmegaConf.register_new_resolver("project", lambda path: str(project_path(path)), replace=True)
