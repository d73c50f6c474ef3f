"""Every setting there is: dataclasses that Hydra fills from conf/, and what may not be combined.

No torch here: composing a config must stay quick.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from bitsure.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]
MIN_SEQLEN = 8  # tokens of a calibration window


@dataclass
class Model:
    """Where the full-precision model comes from: a directory (`path`) or a hub repository (`repo`)."""

    name: str | None = None  # None: the directory's or repository's own
    path: str | None = None
    repo: str | None = None
    revision: str = "main"
    dtype: str = "auto"  # what it computes in; auto: float32 on a CPU, the checkpoint's own on a GPU

    def __post_init__(self) -> None:
        if (self.path is None) == (self.repo is None):
            raise UserError(
                f"model: needs either model.path (a directory) or model.repo (a hub repository); "
                f"got path={self.path!r}, repo={self.repo!r}. Example: model=local model.path=DIR"
            )
        _one_of("model.dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        self.name = self.name or Path(self.path or self.repo).name


@dataclass
class Quant:
    """The quantizer; each has a class of its own below."""

    needs_data = False  # text to quantize with; what was done is measured on text in any case


@dataclass
class NoQuant(Quant):
    """Full precision."""

    @property
    def name(self) -> str:
        return "none"


@dataclass
class Integers(Quant):
    """Weights as integers with a scale (and zero point, unless symmetric) for each group: transforms, then rounding."""

    bits: int = MISSING
    group_size: int = MISSING  # −1: the whole row; 0: the whole tensor
    symmetric: bool = MISSING
    remainder: str = "shorten"  # what happens to a width that the group does not divide: shorten | pad | row
    transforms: list[str] = field(default_factory=list)  # before rounding, by calibration text: scale, clip
    true_sequential: bool = True  # a block's layers see what those before them became

    def __post_init__(self) -> None:
        _one_of("quant.bits", self.bits, range(2, 9))
        if self.group_size < -1:
            raise UserError(
                f"quant.group_size={self.group_size}: a positive number of weights, -1 for a whole row, 0 for a whole tensor."
            )
        _one_of("quant.remainder", self.remainder, ("shorten", "pad", "row"))
        for transform in self.transforms:
            _one_of("quant.transforms", transform, ("scale", "clip"))
        if list(self.transforms) not in ([], ["scale"], ["clip"], ["scale", "clip"]):
            raise UserError(f"quant.transforms={list(self.transforms)}: each once, scale before clip.")
        if self.group_size == 0 and "clip" in self.transforms:
            raise UserError("quant.transforms=[clip] narrows groups: quant.group_size=0 has none. Give a group size or -1.")

    @property
    def name(self) -> str:
        ahead = "+".join(self.transforms).replace("scale+clip", "awq")
        label = "+".join(filter(None, [ahead, self.rounding])).replace("awq+rtn", "awq")
        at_once = "" if self.true_sequential or not self.needs_data else "-parallel"
        return f"{label}{self.bits}" + _suffix(self.group_size, self.symmetric, self.remainder) + at_once


@dataclass
class Rtn(Integers):
    """Round to nearest."""

    rounding = "rtn"

    @property
    def needs_data(self) -> bool:
        return bool(self.transforms)


@dataclass
class Gptq(Integers):
    """GPTQ (Frantar et al. 2023)."""

    rounding = "gptq"
    needs_data = True

    backend: str = MISSING  # gptqmodel: the packed format that people deploy; native: our own; auto_gptq: the study's library
    desc_act: bool = MISSING  # act-order
    damp_percent: float = MISSING  # a fraction of the Hessian's mean diagonal

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("quant.backend", self.backend, ("gptqmodel", "native", "auto_gptq"))
        if not 0 < self.damp_percent < 1:
            raise UserError(f"quant.damp_percent={self.damp_percent}: a fraction between 0 and 1, such as 0.01.")
        if self.backend == "native":
            return
        _one_of(f"quant.bits ({self.backend})", self.bits, (2, 3, 4, 8))
        _one_of(f"quant.group_size ({self.backend})", self.group_size, (-1, 16, 32, 64, 128, 256, 512, 1024))
        if self.transforms or self.remainder != "shorten":
            raise UserError(
                f"quant.backend={self.backend} knows no transforms and shortens the last group: "
                f"transforms={list(self.transforms)}, remainder={self.remainder} need quant.backend=native."
            )

    @property
    def name(self) -> str:
        library = "" if self.backend == "gptqmodel" else f"-{self.backend.replace('_', '')}"
        return super().name + ("-actorder" if self.desc_act else "") + library


@dataclass
class Cast(Quant):
    """Every tensor rounded to a floating-point type; what it then computes in is model.dtype."""

    dtype: str = MISSING

    def __post_init__(self) -> None:
        _one_of("quant.dtype", self.dtype, ("float32", "bfloat16", "float16"))

    @property
    def name(self) -> str:
        return self.dtype


@dataclass
class Prequantized(Quant):
    """A checkpoint that others quantized from `model`: a directory (`path`) or a hub repository (`repo`)."""

    path: str | None = None
    repo: str | None = None
    revision: str = "main"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.repo is None):
            raise UserError(
                f"quant=prequantized: needs either quant.path (a directory) or quant.repo (a hub repository); "
                f"got path={self.path!r}, repo={self.repo!r}. Example: quant=prequantized quant.path=DIR"
            )

    @property
    def name(self) -> str:
        return Path(self.path or self.repo).name or "prequantized"


@dataclass
class Bnb(Quant):
    """bitsandbytes: 4-bit codebooks in blocks of 64 (QLoRA, Dettmers et al. 2023), or rows of int8 (LLM.int8(), 2022)."""

    type: str = MISSING  # nf4 | fp4 | int8
    double_quant: bool = False  # the blocks' scales in 8 bits, too

    def __post_init__(self) -> None:
        _one_of("quant.type", self.type, ("nf4", "fp4", "int8"))
        if self.double_quant and self.type == "int8":
            raise UserError(
                "quant.double_quant=true: int8 has one scale a row and no blocks. Leave it out, or take nf4 or fp4."
            )

    @property
    def name(self) -> str:
        return f"bnb-{self.type}" + ("-double" if self.double_quant else "")


@dataclass
class Hqq(Quant):
    """HQQ (Badri & Shaji 2023): half-quadratic search for zero points, without data."""

    bits: int = MISSING
    group_size: int = MISSING  # −1: the whole row

    def __post_init__(self) -> None:
        _one_of("quant.bits", self.bits, (2, 3, 4, 5, 6, 8))
        if self.group_size != -1 and (self.group_size < 8 or self.group_size % 8):
            raise UserError(f"quant.group_size={self.group_size}: hqq takes multiples of 8, and -1 for a whole row.")

    @property
    def name(self) -> str:
        return f"hqq{self.bits}" + {64: "", -1: "-row"}.get(self.group_size, f"-g{self.group_size}")


@dataclass
class Noise(Quant):
    """Gaussian noise on the weights, as large in each layer's output as what the quantizer `like` did: its control."""

    like: Quant = MISSING
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.like, (NoQuant, Noise)):
            raise UserError(f"quant.like={self.like.name}: noise is matched to a quantizer, such as quant@quant.like=gptq4.")

    @property
    def name(self) -> str:
        return f"noise-{self.like.name}-{self.seed}"

    @property
    def needs_data(self) -> bool:
        return self.like.needs_data


@dataclass
class Control:
    """The noise control: as many models with noise of the quantizer's output error are scored beside the quantized one."""

    seeds: int = MISSING

    def __post_init__(self) -> None:
        if self.seeds != 0:
            _at_least("control.seeds", self.seeds, 19, " (a p-value of .05 needs as many), or 0 for none")


@dataclass
class Calib:
    """The quantizer's data, `nsamples` windows of `seqlen` tokens: of files (`path`), a file of a hub data set, or of none."""

    name: str = MISSING
    kind: str = "text"  # text: files; task: the scored tasks' training splits; random: tokens of the vocabulary
    path: str | None = None  # a file, or a folder of them: .txt, or .jsonl, .json.gz, .parquet with a `text` field
    repo: str | None = None
    file: str | None = None
    document_start: str | None = None  # where lines or rows are parts of documents: a regular expression for the first
    nsamples: int = MISSING
    seqlen: int = MISSING
    seed: int = 0
    if_missing: str = "error"  # what to do where the hub's file is not to be had: error | pocket

    def __post_init__(self) -> None:
        _one_of("calib.kind", self.kind, ("text", "task", "random"))
        _one_of("calib.if_missing", self.if_missing, ("error", "pocket"))
        _at_least("calib.nsamples", self.nsamples, 1)
        _at_least("calib.seqlen", self.seqlen, MIN_SEQLEN)
        if self.document_start is not None:
            try:
                re.compile(self.document_start)
            except re.error as error:
                raise UserError(f"calib.document_start={self.document_start}: no regular expression: {error}.") from error
        files = [key for key in ("path", "repo", "file", "document_start") if getattr(self, key) is not None]
        if self.kind != "text" and files:
            raise UserError(f"calib={self.name} reads no file: leave out calib.{files[0]}, or choose calib=text.")
        if self.kind == "text" and self.path is None and (self.repo is None or self.file is None):
            raise UserError(
                "calib: needs calib.path=FILE (.txt, or .jsonl, .json.gz, .parquet with a `text` field) or a folder of such. "
                "Example: calib=text calib.path=my.txt"
            )


@dataclass
class Task:
    """Which of the harness's tasks, by their names there."""

    name: str = MISSING
    names: list[str] = MISSING
    include_path: str | None = None  # a folder of one's own task YAML
    num_fewshot: int | None = None  # None: the task's own
    limit: int | None = None  # the first questions of each task only
    seed: int = 1234  # draws the few-shot examples; the harness's default

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("task.names=[]: name at least one task, such as 'task.names=[arc_easy]'.")
        if len(set(self.names)) < len(self.names):
            raise UserError(f"task.names={self.names}: a task is named twice.")
        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise UserError(f"task.include_path={self.include_path}: no such directory.")
        if self.limit is not None:
            _at_least("task.limit", self.limit, 1, "; leave it out to score every question")
        if self.num_fewshot is not None:
            _at_least("task.num_fewshot", self.num_fewshot, 0)


@dataclass
class Scoring:
    """How the model is run; the numbers are the same either way, within the rounding of its type."""

    share: bool = True  # run what questions have in common once
    dequantize: bool = True  # unpack quantized weights once into ordinary layers; false: the packed kernels of gptqmodel


@dataclass
class Metric:
    """How records become numbers."""

    n_bins: int = MISSING  # bins of the calibration errors and the reliability diagram
    binning: str = MISSING  # uniform: of equal width; quantile: of equally many questions
    normalization: str = MISSING  # what a choice's log-probability is divided by: none (the study) | token | char | byte
    paper_compat: bool = MISSING  # the study's numbers as its notebook computes them, beside the corrected ones
    resamples: int = MISSING  # bootstrap
    confidence_level: float = MISSING  # of every interval
    alpha: float = MISSING  # of the paired t-test
    seed: int = MISSING
    # what a quantized answer costs where a full-precision one costs 1; None: its bits per weight of 16, a quarter if not known
    quantized_cost: float | None = None

    def __post_init__(self) -> None:
        _at_least("metric.n_bins", self.n_bins, 1)
        _one_of("metric.binning", self.binning, ("uniform", "quantile"))
        _one_of("metric.normalization", self.normalization, ("none", "token", "char", "byte"))
        _at_least("metric.resamples", self.resamples, 100)
        if self.quantized_cost is not None and not self.quantized_cost > 0:
            raise UserError(f"metric.quantized_cost={self.quantized_cost}: a number above 0, or null.")
        for key in ("confidence_level", "alpha"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(f"metric.{key}={getattr(self, key)}: a number between 0 and 1.")


@dataclass
class Verdict:
    """What loss is small enough to ship; a task is non-inferior if every interval keeps within its margin."""

    strict: bool = MISSING  # exit with an error unless every task is non-inferior
    accuracy_margin: float = MISSING
    nll_margin: float = MISSING  # nats
    calibration_error_margin: float = MISSING

    def __post_init__(self) -> None:
        for key in ("accuracy_margin", "nll_margin", "calibration_error_margin"):
            if not getattr(self, key) > 0:
                raise UserError(f"verdict.{key}={getattr(self, key)}: a number above 0, such as 0.01.")


@dataclass
class Tracking:
    """Weights & Biases."""

    mode: str = MISSING
    project: str = "bitsure"
    entity: str | None = None
    group: str | None = None  # None: the sweep's directory in a sweep, else the model's name

    def __post_init__(self) -> None:
        _one_of("tracking.mode", self.mode, ("offline", "online", "disabled"))


@dataclass
class Paths:
    """Where things are kept."""

    store: str = MISSING
    hub_mirror: str | None = None  # holds datasets/<org>/<name> and models/<org>/<name>; looked in before the hub

    def __post_init__(self) -> None:
        if self.hub_mirror is not None and not Path(self.hub_mirror).is_dir():
            raise UserError(f"paths.hub_mirror={self.hub_mirror}: no such directory.")


@dataclass
class Config:
    model: Model = MISSING
    quant: Quant = MISSING
    control: Control = MISSING
    calib: Calib = MISSING
    task: Task = MISSING
    scoring: Scoring = MISSING
    metric: Metric = MISSING
    verdict: Verdict = MISSING
    tracking: Tracking = MISSING
    paths: Paths = MISSING


def register() -> None:
    """Make the schemas and the `${project:…}` resolver known to Hydra; conf/*.yaml build on them."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    classes = {"none": NoQuant, "rtn": Rtn, "gptq": Gptq, "cast": Cast, "prequantized": Prequantized, "bnb": Bnb, "hqq": Hqq}
    classes["noise"] = Noise
    for name, node in classes.items():
        store.store(group="schema/quant", name=name, node=node)
    OmegaConf.register_new_resolver("project", lambda path: str(PROJECT / path), replace=True)


def to_dataclasses(composed: DictConfig) -> Config:
    """The typed config, its values checked. Raises UserError with the key and what is allowed."""
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise UserError(f"No value for {', '.join(missing)}. Give one on the command line, such as {missing[0]}=…")
    _check_keys(composed)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    if config.control.seeds and isinstance(config.quant, (NoQuant, Noise)):
        raise UserError(
            f"control.seeds={config.control.seeds}: quant={config.quant.name} has no noise control of its own. Leave it out."
        )
    packed = isinstance(config.quant, NoQuant) or (isinstance(config.quant, Gptq) and config.quant.backend == "gptqmodel")
    if not config.scoring.dequantize and not packed:
        raise UserError(
            "scoring.dequantize=false: only checkpoints of quant.backend=gptqmodel run on packed kernels. "
            "Leave it out for this quantizer."
        )
    return config


def _check_keys(node: DictConfig, above: str = "") -> None:
    """Hydra itself refuses unknown keys, but for those that come with a + in front."""
    known = [field.name for field in fields(OmegaConf.get_type(node))]
    for key in node:
        if key not in known:
            raise UserError(f"{above}{key}: no such setting. There are {', '.join(above + name for name in known)}.")
        if OmegaConf.is_dict(node[key]):
            _check_keys(node[key], f"{above}{key}.")


def _one_of(key: str, given: Any, allowed: Any) -> None:
    if given not in allowed:
        raise UserError(f"{key}={given}: allowed are {', '.join(map(str, allowed))}.")


def _at_least(key: str, given: int, least: int, hint: str = "") -> None:
    if given < least:
        raise UserError(f"{key}={given}: must be {least} or more{hint}.")


def _suffix(group_size: int, symmetric: bool, remainder: str) -> str:
    """What differs from the presets' group of 128, symmetric, shortened where it does not fit."""
    group = {128: "", -1: "-row", 0: "-tensor"}.get(group_size, f"-g{group_size}")
    return group + ("" if symmetric else "-asym") + ("" if remainder == "shorten" else f"-{remainder}")
