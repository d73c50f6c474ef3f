"""Every key in conf/ is read by something: a setting that does nothing is a lie."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from bitsure.base.memo import Memo
from bitsure.config import schema
from bitsure.config.metric import MetricSettings
from bitsure.config.number_formats import Activations, KeysValues
from bitsure.config.paths import CONF
from bitsure.config.quantizers import Tuning
from bitsure.config.retrieval_settings import RetrievalSettings
from bitsure.config.rotation_settings import RotationSettings
from bitsure.config.schema import (
    AttributionSettings,
    CalibSettings,
    CompressSettings,
    Config,
    ControlSettings,
    ModelSettings,
    PathSettings,
    ScoringSettings,
    SweepSettings,
    TaskSettings,
    TrackingSettings,
    VerdictSettings,
)
from bitsure.config.server_settings import ServerAddress, ServerSettings
from bitsure.config.text import TextSettings
from bitsure.config.vllm_settings import VllmSettings
from bitsure.metrics.written_answers import answer_set
from bitsure.models.facts import transformers_major_version
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.calibration.windows import draw_windows
from bitsure.quantize.libraries.auto_round import AutoRound
from bitsure.quantize.libraries.bnb import Bnb
from bitsure.quantize.libraries.gptq import Gptq
from bitsure.quantize.libraries.hqq import Hqq
from bitsure.quantize.libraries.llama_cpp import LlamaCpp
from bitsure.quantize.libraries.prequantized import Prequantized
from bitsure.quantize.libraries.served_weights import ServedWeights
from bitsure.quantize.mixed.mixed_bits import MixedBits
from bitsure.quantize.mixed.recipe import Recipe
from bitsure.quantize.native.cast import Cast
from bitsure.quantize.native.full_precision import NoQuant
from bitsure.quantize.native.kept import Kept
from bitsure.quantize.native.noise import Noise
from bitsure.quantize.native.rtn import Rtn
from bitsure.records.answer_units import answer_units
from bitsure.results import Labels
from bitsure.run import pipeline
from bitsure.run.preparation import prepare
from bitsure.scoring.served.served_engine import ServedEngine
from bitsure.scoring.vllm_setup import VllmSetup
from bitsure.sweep.launch import cell_process as cells
from bitsure.sweep.launch.cell_line import CellLine
from bitsure.sweep.launch.composed_cell import ComposedCell
from bitsure.sweep.launch.composing import repeated
from bitsure.tasks.harness_tasks import load_tasks
from tests.builders.fake_vllm import install_vllm
from tests.builders.loopback_server import serve_completions
from tests.builders.marks import GPTQ_LIBRARY
from tests.builders.settings import METRIC
from tests.builders.tokenizers import byte_tokenizer
from tests.builders.written import written

pytestmark = pytest.mark.usefixtures("blank_pictures")

schema.register()
# the quantizers of optional libraries, where these are installed
LIBRARIES = {"bitsandbytes": Bnb("nf4"), "hqq": Hqq(4, 64), "auto_round": AutoRound(4, 64, 1)}
OPTIONAL = {library: cell for library, cell in LIBRARIES.items() if find_spec(library)}
SECTIONS = (
    ModelSettings,
    Kept,
    Rtn,
    Tuning,
    RotationSettings,
    Gptq,
    Activations,
    KeysValues,
    Noise,
    MixedBits,
    ControlSettings,
    Cast,
    Prequantized,
    ServedWeights,
    LlamaCpp,
    CalibSettings,
    TaskSettings,
    RetrievalSettings,
    TextSettings,
    ServerSettings,
    VllmSettings,
)
SECTIONS += (
    ScoringSettings,
    ServerSettings,
    CompressSettings,
    AttributionSettings,
    MetricSettings,
    VerdictSettings,
    TrackingSettings,
    PathSettings,
    SweepSettings,
)
SECTIONS += tuple(type(quant) for quant in OPTIONAL.values())
# copying, checking and comparing a config are no use of it
NOT_READING = (str(Path(schema.__file__).parent), dataclasses.__file__, copy.__file__)
CHECKS = ("__post_init__", "name")  # nor is naming a quantizer
HANDS_ON = ServerAddress.of.__name__  # gives an address to what contacts the server


@pytest.fixture
def read(monkeypatch) -> set[tuple[str, str]]:
    """(class, field) of every setting that is read while the test runs."""
    seen: set[tuple[str, str]] = set()

    def watch(cls):
        names = {field.name for field in dataclasses.fields(cls)}

        def get(self, name):
            if name in names:
                code = sys._getframe(1).f_code
                is_outside = not code.co_filename.startswith(NOT_READING) and code.co_name not in CHECKS
                if is_outside or code.co_name == HANDS_ON:
                    seen.add((cls.__name__, name))
            return object.__getattribute__(self, name)

        monkeypatch.setattr(cls, "__getattribute__", get)

    for section in SECTIONS:
        watch(section)
    return seen


def test_every_setting_is_read_in_some_run(read, tiny_model, tiny_llama, calib_file, own_tasks, tmp_path, monkeypatch):
    def config(quant, model, calib, mode, task="tiny_pets", text=None) -> Config:
        return Config(
            model=model,
            quant=quant,
            control=ControlSettings(seeds=0),
            calib=calib,
            task=TaskSettings(name="own", names=[task], include_path=str(own_tasks), limit=6),
            text=text or TextSettings(),
            scoring=ScoringSettings(),
            compress=CompressSettings(measure=True),
            attribution=AttributionSettings(measure=text is not None),
            metric=MetricSettings(**vars(METRIC) | {"resamples": 100}),
            verdict=VerdictSettings(strict=False, accuracy_margin=0.5, nll_margin=5.0, calibration_error_margin=0.5),
            tracking=TrackingSettings(mode=mode),
            sweep=SweepSettings(),
            paths=PathSettings(store=str(tmp_path / "store"), hub_mirror=str(mirror)),
        )

    mirror = tmp_path / "mirror"
    (mirror / "models" / "org").mkdir(parents=True)
    (mirror / "models" / "org" / "tiny").symlink_to(tiny_model)
    (mirror / "datasets" / "org" / "text").mkdir(parents=True)
    (mirror / "datasets" / "org" / "text" / "c.txt").write_bytes(calib_file.read_bytes())
    own = CalibSettings(name="text", path=str(calib_file), nsamples=8, seqlen=64)
    hub = CalibSettings(name="hub", repo="org/text", file="c.txt", nsamples=8, seqlen=64)
    gone = CalibSettings(name="gone", repo="org/text", file="none.txt", nsamples=8, seqlen=64, if_missing="pocket")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    gptq = {"bits": 4, "symmetric": True, "desc_act": False, "damp_percent": 0.01}
    smoothed = {"transforms": ["smooth"], "activations": Activations(8)}
    both = {"transforms": ["smooth", "reassemble"], "activations": Activations(8)}
    rotated = both | {"transforms": ["rotate", *both["transforms"]], "rotation": RotationSettings(steps=1)}
    reassembled = {"transforms": ["reassemble"], "activations": Activations(4)}
    taught = CalibSettings(name="task", kind="task", nsamples=8, seqlen=16)
    room = "cpu:300KB" if transformers_major_version() > 4 else "cpu:1GB"  # 4 cannot leave parts on disk
    split = ModelSettings(repo="org/tiny", device_map="auto", max_memory=[room])
    lines = {"protocol": "strided", "window": 32, "stride": 16, "limit": 80, "add_bos": True, "document_start": "^7 "}
    scored = TextSettings("own", repo="org/text", revision="main", file="c.txt", **lines)
    each = [
        (Gptq(**gptq, group_size=64, backend=GPTQ_LIBRARY), ModelSettings(path=str(tiny_model)), own, "offline"),
        (Gptq(**gptq, group_size=48, backend="native", **both), ModelSettings(path=str(tiny_model)), own, "disabled"),
        (Rtn(4, 48, False, transforms=["clip"]), ModelSettings(repo="org/tiny"), hub, "disabled", "tiny_pets", scored),
        (Noise(like=Rtn(4, 64, False)), ModelSettings(repo="org/tiny"), gone, "disabled"),
        (MixedBits(like=Rtn(4, 64, False), bits_per_weight=3.5), ModelSettings(repo="org/tiny"), own, "disabled"),
        (Rtn(format="mxfp4", **smoothed), ModelSettings(repo="org/tiny"), own, "disabled"),
        (Rtn(4, -1, False, tuning=Tuning(4), **reassembled), ModelSettings(repo="org/tiny"), own, "disabled"),
        (Kept(**rotated, kv=KeysValues(4)), ModelSettings(repo="org/tiny"), own, "disabled"),
        (Cast("bfloat16"), split, taught, "disabled", "tiny_taught"),
        (LlamaCpp("q4_0", imatrix=True), ModelSettings(path=str(tiny_llama)), own, "disabled"),
        *((quant, ModelSettings(repo="org/tiny"), own, "disabled") for quant in OPTIONAL.values()),
    ]
    for number, cell in enumerate(each):
        pipeline.run(config(*cell), tmp_path / str(number))
    [cast] = [number for number, cell in enumerate(each) if isinstance(cell[0], Cast)]
    proof = json.loads((tmp_path / str(cast) / "quantization.json").read_text())
    assert proof["calib_data"] == {"name": "task (tiny_taught)", "windows": 0, "seqlen": 16}
    made = next(path.parent for path in (tmp_path / "store" / "weights").rglob("config.json"))  # the GPTQ library's
    (mirror / "models" / "org" / "tiny-gptq").symlink_to(made)
    ready = (Prequantized(repo="org/tiny-gptq"), ModelSettings(path=str(tiny_model)), own, "disabled")
    pipeline.run(config(*ready), tmp_path / "ready")
    with serve_completions(names=("tiny", "tiny-awq")) as server:
        full = ModelSettings(path=str(tiny_model), url=server.url, served_name="tiny")
        weights = ServedWeights(url=server.url, served_name="tiny-awq")
        prepared = prepare(config(weights, full, own, "disabled"), tmp_path / "log", Memo())
        ServedEngine(prepared.scored.server, 64, 1).score([([5, 6], [7])])
    install_vllm(monkeypatch)
    VllmSetup(ScoringSettings(), "float32", tmp_path / "log").load(prepared.source, None, ExitStack())
    (tmp_path / "cell").mkdir()
    line = CellLine(tmp_path / "cell", tmp_path, Labels(model="tiny", quantizer="rtn4"))
    ended = SimpleNamespace(start=lambda: None, is_alive=lambda: False, join=lambda: None, exitcode=0)
    monkeypatch.setattr(cells.multiprocessing, "Process", lambda **given: ended)  # what it reads is seen above
    cells.run(config(*each[2]), tmp_path / "cell", line, {})
    assert repeated([ComposedCell(0, [], tmp_path, config(*each[2]), line.labels)]) == {}
    answer_set(answer_units(written(["a"], [True], [[-1.0]])), config(*each[2]).metric)  # of an answer that a model wrote
    file = next(tmp_path.glob("*/recipe.yaml"))
    recipe = Recipe.read(file)
    layers = SimpleNamespace(layer_shapes=recipe.layers, source=SimpleNamespace(name="tiny"))
    MixedBits(like=Rtn(4, **recipe.grid), recipe=str(file)).check(layers)
    found = RetrievalSettings(lengths=[100], depths=[0.0], questions=1)
    load_tasks(TaskSettings(name="own", names=["retrieval_pairs"], retrieval=found), ["retrieval_pairs"], None)
    # the rest is read where a hub is reached: the revision of a repository
    settings = {(section.__name__, field.name) for section in SECTIONS for field in dataclasses.fields(section)}
    assert settings - read == set(), settings - read
    assert ("ModelSettings", "revision") in read


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "calib").glob("*.yaml")))
def test_what_each_calibration_text_sets_is_read(read, option, calib_file, own_tasks, tmp_path):
    """With a small text of ours in place of each hub file."""
    given = OmegaConf.to_container(OmegaConf.load(CONF / "calib" / f"{option}.yaml"), resolve=True)
    calib = CalibSettings(**given | {"nsamples": 2, "seqlen": 32} | ({"path": str(calib_file)} if option == "text" else {}))
    if calib.repo is not None:
        _write_text(tmp_path / "datasets" / calib.repo / calib.file, calib_file.read_text().split("\n\n"))
    task = TaskSettings(name="own", names=["tiny_taught"], include_path=str(own_tasks))
    text = locate_text(calib, str(tmp_path), task)
    windows, _ = draw_windows(text, calib, 2, byte_tokenizer(), None)
    assert windows.shape == (2, 32) and len(text.fingerprint) == 64
    assert {("CalibSettings", key) for key in given} - {
        ("CalibSettings", "nsamples")
    } <= read  # nsamples is the plan's to read, above


def _write_text(path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path)
    else:
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def test_every_quantizer_of_conf_is_known_to_the_tests():
    """NoQuant has no settings."""
    named = {OmegaConf.load(path).get("_target_") for path in (CONF / "quant").glob("*.yaml")} - {None}
    known = {NoQuant, Kept, Rtn, Gptq, Cast, Prequantized, ServedWeights, LlamaCpp, Bnb, Hqq, AutoRound, Noise, MixedBits}
    assert named == {f"{kind.__module__}.{kind.__qualname__}" for kind in known}
