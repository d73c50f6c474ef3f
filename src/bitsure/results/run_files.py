"""provenance.json, status.json and plan.json: where a run comes from, how far it came, which cells a sweep has."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from bitsure.results.gguf import GgufOrigin
from bitsure.results.result import Integer, Result

State: TypeAlias = Literal["running", "done", "failed", "killed", "timed out", "skipped"]


def _integer_if_any(value: object) -> object:
    """Return text as an integer, None for text that is none, and any other value as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)
        return None
    return value


class Machine(Result):
    """The machine that a run ran on."""

    system: str
    """The operating system."""
    processor: str
    """The processor's architecture."""
    cores: int | None
    """Processors; null where it is not known."""
    threads: Annotated[Integer | None, BeforeValidator(_integer_if_any)]
    """Threads that torch computed with. Earlier versions wrote OMP_NUM_THREADS; null where that was no number."""


class Labels(Result):
    """What a command calls its model and its quantizer, for terminals and pages."""

    model: str
    """The model's name, with as many parent folders as tell it from others of its sweep."""
    quantizer: str
    """The option of conf/quant, and the settings changed beside it: `w4a8kv4`, `w4 group_size=32`."""
    preset: str | None = None
    """The option of conf/quant alone; absent in runs of earlier versions, and where it is not known."""
    settings: list[str] = Field(default_factory=list)
    """What else the command sets that may change results, such as `task.limit=200`; in a sweep what is not the same for all."""


class ModelOrigin(Result):
    """The full-precision model."""

    name: str
    """The model's name."""
    series: str | None
    """Models of one kind in several sizes; null where conf/model does not say."""
    training_seed: Integer | None
    """The seed that the model was trained with; null where it is not known."""
    revision: str | None
    """The hub's commit; null for a directory."""
    fingerprint: str
    """The hash of the files' content, or repository and commit."""
    dtype: str
    """The type that was computed in; `unknown` where a server ran it."""
    repo: str | None
    """The hub repository; null for a directory."""
    full_dtype: str | None
    """The type that the authors published the weights in; null where conf/model does not say."""
    device_map: str | None
    """How the model was spread over devices; null for one device."""
    files: dict[str, str] | None = None
    """File, links resolved → its SHA-256; absent where the commit identifies the files."""
    revision_asked: str | None = None
    """The revision of the settings; absent for a directory."""
    revision_checked: bool | None = None
    """Whether the files are known to be of that revision; absent for a directory."""
    parameters: Integer | None = None
    """Parameters, a tied one counted once."""
    bytes_on_disk: Integer | None = None
    """Bytes of the weight files, or of the GGUF file."""
    gguf: GgufOrigin | None = None
    """The GGUF file that the model was read from; absent for other models."""


class ServedOrigin(Result):
    """A model that a server ran, or vLLM in this process: what that said of it, and what a test of its answers measured."""

    url: str
    """The server's address; of vLLM in this process its version."""
    name: str
    """What the server calls the model."""
    asked_by: str
    """How a prompt's log-probabilities were asked for: `prompt_logprobs` as of vLLM, or `echo` as of OpenAI."""
    nondeterminism: float
    """The largest difference between two answers to the same request, nats."""
    inconsistency: float | None
    """The largest difference between a token's log-probability in a prompt and as the server writes it, nats; null where the
    server does not say what it writes so that it can be sent back."""
    context: int | None
    """The most tokens of a prompt and the token written after it; null where neither the server nor config.json says."""
    reference: str
    """The hash of the log-probabilities of fixed tokens, which tells the model from another under its name."""
    stated: dict[str, Any]
    """What the server's list of models says of it; of vLLM in this process the settings that its kernels follow from."""
    in_process: bool = False
    """Whether vLLM ran it in this process, with weights that were read here. A server's weights are not seen."""


class QuestionCount(Result):
    """How many questions of a task were asked."""

    asked: int
    """Questions that were asked."""
    available: int
    """Questions that the task has; `task.limit` leaves some out."""


class TextOrigin(Result):
    """The text that was scored token by token, and how it was cut."""

    task: str
    """What metrics.json calls it: `text/<name>/<protocol>`; `text/tasks` for all of `text/<task>/prompts` and `/answers`;
    `text/written` for all of `text/<task>/written`."""
    protocol: str
    """How it is tokenized and cut into windows; docs/text.md says what each protocol does. `tasks`: as each task does."""
    window: int
    """The most tokens of a window."""
    stride: int | None
    """Tokens between the beginnings of windows; null where windows do not overlap."""
    limit: int | None
    """The first tokens of the text that were taken; null for all."""
    bos: str
    """Where a BOS token stands, in words."""
    windows: int
    """How many windows there are."""
    tokens: Integer
    """How many tokens were scored."""
    sha256: str
    """The SHA-256 of the file; of prompts and answers, of what identifies the tasks' questions."""
    origin: dict[str, Any]
    """Where the file came from; of prompts and answers, `data` says it."""


class Provenance(Result):
    """provenance.json; it is written as soon as something is known, and again with more."""

    command: list[str]
    """The command line."""
    git_commit: str | None
    """The commit of the project; null outside a repository."""
    git_changed_files: int
    """Files that differ from that commit."""
    python: str
    """The version of Python."""
    packages: dict[str, str | None]
    """Package → version; null where it is not installed."""
    machine: Machine
    """The machine."""
    model: ModelOrigin | None = None
    """The model; absent until it was found."""
    servers: dict[str, ServedOrigin] | None = None
    """`full precision` or `quantized` → the server, or vLLM in this process, that ran it; absent where bitsure's own engine ran
    both."""
    labels: Labels | None = None
    """What the command calls model and quantizer; absent in runs of earlier versions."""
    weights: dict[str, Any] | None = None
    """What the quantized weights were made from (the store's key); null in full precision."""
    calib_text: str | None = None
    """The calibration text's name; null where there is none."""
    calib_data: dict[str, Any] | None = None
    """Where the calibration text came from, and the SHA-256 of each of its files; null for text that is in no file."""
    asked: dict[str, Any] | None = None
    """How questions were asked: few-shot examples, limit, seed, chat template, system instruction, BOS."""
    text: TextOrigin | None = None
    """The text that was scored; absent where none was."""
    questions: dict[str, QuestionCount] | None = None
    """Task → how many of its questions were asked; empty where an older version scored one of them."""
    own_tasks: str | None = None
    """The hash of the files in `task.include_path`; null where there is none."""
    own_task_files: dict[str, str] | None = None
    """The SHA-256 of each of these files, links resolved; null where there is none, absent in older files."""
    open_files: dict[str, str] | None = None
    """The SHA-256 of `task.open.file` and of the first answers, by path; absent where no open questions were asked."""
    own_metrics: dict[str, str] | None = None
    """Own metric → the hash of the file of its function; absent where there are none."""
    data: dict[str, Any] | None = None
    """Task → where its data came from; `files` has the SHA-256 of each file that no repository holds, links resolved."""
    data_full_precision: dict[str, Any] | None = None
    """The same of full precision, where that was scored on other data."""


INTERRUPTED = "interrupted"  # the error of a run that was stopped by Ctrl-C or a signal


def state_in_words(state: str, error: str | None) -> str:
    """Return the state of a run as people are told it: `stopped` where it was interrupted, which status.json calls failed."""
    return "stopped" if state == "failed" and error == INTERRUPTED else state


class Status(Result):
    """status.json."""

    state: State
    """How far the run came."""
    host: str | None = None
    """The machine's name."""
    pid: int | None = None
    """The process."""
    started: float | None = None
    """Seconds since 1970."""
    error: str | None = None
    """What went wrong; null while a run goes on and where nothing went wrong."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Stage → seconds it took."""
    stage: str | None = None
    """The stage that runs; null when none does."""
    warning: str | None = None
    """What is missing although the run is done, such as its W&B run; absent where nothing is."""


class PlannedCell(Result):
    """One cell of a sweep."""

    directory: str
    """Its directory, relative to the sweep's."""
    overrides: list[str]
    """What its command changes."""
    name: str
    """Model and quantizer, by their full names."""
    labels: Labels | None = None
    """What the command calls them; absent in sweeps of earlier versions."""


class SweepPlan(Result):
    """plan.json of a sweep's directory."""

    cells: list[PlannedCell]
    """All cells, in the order in which they are launched."""
    repeated: dict[str, str] = Field(default_factory=dict)
    """With `sweep.skip_repeated`: directory of a cell that is left out → that of the earlier cell with the same results."""
