"""What a plan shows of its cells, and its estimate, without a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from bitsure.base.errors import UserError
from bitsure.base.memo import Memo
from bitsure.base.store import Store
from bitsure.base.work import COST_FILE, EntryCost, write_cost
from bitsure.config import schema
from bitsure.config import validation as settings
from bitsure.config.paths import CONF
from bitsure.models.load import empty_model
from bitsure.models.size import parameters_of
from bitsure.results import Labels
from bitsure.sweep.launch import assumed_gpu, dry_run, estimate, printed_gpus, printed_plan
from bitsure.sweep.launch.assumed_gpu import Gpu
from bitsure.sweep.launch.composed_cell import CellErrors, ComposedCell
from tests.builders.fake_vllm import install_vllm

schema.register()


def inspect(cells: Sequence[ComposedCell], on_nodes: bool = False) -> tuple[list[dry_run.InspectedCell], list[str]]:
    errors = CellErrors()
    return dry_run.inspect_cells(cells, errors, Memo(), on_nodes), errors.lines()


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """Composes a planned cell that keeps its things in the test's folder."""
    monkeypatch.setenv("BITSURE_STORE", str(tmp_path / "store"))

    def made(number: int, *overrides: str) -> ComposedCell:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = settings.to_dataclasses(compose("config", ["model=pocket-300k", "task.limit=5", *overrides]))
        labels = Labels(model=str(config.model.name), quantizer=config.quant.name)
        return ComposedCell(number, list(overrides), tmp_path / str(number), config, labels)

    return made


def test_every_piece_of_work_is_counted_once_and_what_the_store_has_is_seen(cell, tmp_path):
    cells = [cell(0, "quant=rtn3"), cell(1, "quant=rtn4"), cell(2, "quant=none"), cell(3, "quant=rtn3", "calib.seed=1")]
    planned, errors = inspect(cells)
    assert errors == [] and [len(one.missing) for one in planned] == [9, 9, 4, 9]
    assert len({place for one in planned for place in one.missing}) == 4 + 3 * 5
    assert all(one.missing == list(one.pieces) for one in planned)  # in the order in which they are made
    [piece] = [piece for piece in planned[0].pieces.values() if piece.kind == "weights"]
    with Store(tmp_path / "store").create("weights", piece.made_from) as entry:
        (entry / "model.safetensors").touch()
    again, _ = inspect(cells)
    assert len(again[0].missing) == 8 and len(again[3].missing) == 9


def test_a_library_that_is_not_installed_is_an_error_or_skips_its_cell(cell, not_installed):
    not_installed("hqq")
    _, errors = inspect([cell(0, "quant=hqq4"), cell(1, "quant=rtn3")])
    assert len(errors) == 1 and "quant=hqq4 needs hqq, which is not installed" in errors[0]
    skipping = "sweep.skip_not_installed=true"
    planned, errors = inspect([cell(0, "quant=hqq4", skipping), cell(1, "quant=rtn3", skipping)])
    assert errors == [] and [one.state for one in planned] == ["skipped", "new"] and planned[0].pieces == {}


def test_a_plan_says_what_else_tells_its_cells_apart(cell, capsys, monkeypatch):
    nothing = {"present": set(), "missing": set(), "downloads": [], "state": "new", "pieces": {}}
    monkeypatch.setattr(dry_run, "inspect_cells", lambda cells, *given: [SimpleNamespace(cell=one, **nothing) for one in cells])
    monkeypatch.setattr(printed_plan, "_summary", lambda inspected, memo, on_nodes: "2 cells")
    printed_plan.show([cell(0, "quant=rtn3", "task=pocket_twins"), cell(1, "quant=rtn3", "task=pocket")], CellErrors())
    shown = " ".join(capsys.readouterr().out.split())
    assert "task=pocket_twins" in shown and "task=pocket " in shown and "quant=" not in shown


def test_the_noise_control_is_part_of_the_plan(cell):
    [planned], errors = inspect([cell(0, "quant=rtn3", "control=noise", "control.seeds=19")])
    assert errors == [] and len(planned.missing) == 4 + 20 * 5


def test_attribution_and_compressibility_are_part_of_the_plan_and_of_its_estimate(cell, capsys, tmp_path):
    plain, more = cell(0, "quant=rtn3"), cell(1, "quant=rtn3", "attribution.measure=true", "compress.measure=true")
    [planned, with_more], errors = inspect([plain, more])
    kinds = [piece.kind for piece in with_more.pieces.values()]
    assert errors == [] and kinds[len(planned.pieces) :] == ["compressibility", "attribution"]
    estimator = estimate.WorkEstimator(Store(tmp_path / "store"), Memo())
    *_, attribution = with_more.pieces.values()
    once = [estimator.estimate(piece).seconds for piece in planned.pieces.values() if piece.is_baseline]
    assert estimator.estimate(attribution).seconds == pytest.approx(3 * sum(once))  # attribution.scorings
    for place in planned.pieces:
        piece = planned.pieces[place]
        with Store(tmp_path / "store").create(piece.kind, piece.made_from) as entry:
            (entry / "file").touch()
    printed_plan.show([more], CellErrors())
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 sets of weights or records to make, each once; compressibility of 1 model to measure; attribution of 1" in shown
    assert "for attributing" in shown and "for measuring how far codes compress" in shown


def test_what_is_not_on_this_machine_is_no_error_and_nothing_is_downloaded(cell, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/nowhere")
    [planned], errors = inspect([cell(0, "model=opt-125m", "task=pocket", "calib=c4")])
    assert errors == [] and not planned.pieces
    c4 = "en/c4-train.00000-of-01024.json.gz of data set allenai/c4"
    assert planned.downloads == ["model facebook/opt-125m at revision main", c4]


def test_of_a_served_model_no_weights_are_to_be_downloaded(cell, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/nowhere")
    served = ["model=served", "model.url=http://127.0.0.1:9/v1", "model.repo=org/name", "task=pocket", "calib=pocket"]
    [planned], errors = inspect([cell(0, *served, "quant=none")])
    without = "model org/name at revision main (tokenizer and config.json, no weights)"
    assert errors == [] and planned.downloads == [without]
    [planned], errors = inspect([cell(0, *served, "quant=rtn3")])
    assert errors == [] and planned.downloads == [without, "model org/name at revision main"]


@pytest.mark.parametrize(
    ("overrides", "on_nodes", "known"),
    [
        (["model=llama-2-70b"], False, "128.5 GiB in float16. It cannot run here: model=llama-2-70b: 68,976,648,192 param"),
        (["model=llama-2-70b"], True, "llama-2-70b has 68,976,648,192 parameters by its settings, 128.5 GiB in float16."),
        (["model=hub", "model.repo=org/name"], False, "Of name nothing is known: model.parameters is not given."),
    ],
)
def test_a_plan_says_what_it_cannot_know_and_what_it_does(cell, capsys, monkeypatch, overrides, on_nodes, known):
    monkeypatch.setenv("HF_HOME", "/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cells = [cell(0, *overrides, "task=pocket", "calib=pocket"), cell(1, *overrides, "task=pocket", "quant=none")]
    printed_plan.show(cells, CellErrors(), on_nodes)
    shown = capsys.readouterr().out
    assert "2 cells, 0 done.\n" in shown and "There is no estimate: time, memory and disk follow" in shown
    assert shown.count(known) == 1 and ("It cannot run here" in shown) == ("It cannot run here" in known)
    assert ("The downloads would fail now" in shown) == (not on_nodes)


def test_everything_that_is_wrong_with_the_cells_is_said_at_once(cell, tmp_path):
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "records.parquet").write_bytes(b"PAR1")
    cells = [cell(0, "model=local", "model.path=gone"), cell(1, "calib.nsamples=999999"), cell(2)]
    cells.append(cell(3, "calib.path=gone.txt"))
    _, errors = inspect(cells)
    said = ["model.path=gone", "999999 windows", "already holds records", "gone.txt"]
    assert len(errors) == len(said) and all(any(text in error for error in errors) for text in said)
    before = CellErrors()
    before.add(4, "a bad value")
    with pytest.raises(UserError, match=r"(?s)this plan has 5 errors.*cell 5: a bad value"):
        printed_plan.show(cells, before)


def test_an_error_of_a_library_stands_in_the_plan_which_has_no_log(cell, tmp_path, caplog):
    model = tmp_path / "model"
    shutil.copytree("pocket/models/pocket-llama-1m", model)
    config = json.loads((model / "config.json").read_text()) | {"num_attention_heads": 0}
    (model / "config.json").write_text(json.dumps(config))
    with caplog.at_level("INFO"):
        _, [error] = inspect([cell(0, "model=local", f"model.path={model}", "quant=none", "task=pocket", "calib=pocket")])
    assert "Its own error: ZeroDivisionError: " in error and "log" not in error and not caplog.records


@pytest.mark.parametrize(
    ("overrides", "here"),
    [
        (["model.device=cuda:7"], "model.device=cuda:7"),
        pytest.param(["quant=rtn3", f"model.parameters={10**15}"], "GiB in all", marks=pytest.mark.slow),
        pytest.param(
            ["quant=gptq4", "scoring.dequantize=false", "model.full_dtype=float16"],
            "scoring.dequantize=false",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_only_the_node_can_tell_is_no_error_of_a_sweep_for_nodes(cell, capsys, overrides, here):
    _, [error] = inspect([cell(0, *overrides)])
    assert here in error
    cells = [cell(0, *overrides), cell(1, *overrides, "task.names=[no_such_task]")]
    planned, [error] = inspect(cells, on_nodes=True)
    assert "no_such_task" in error and planned[0].missing
    printed_plan.show(cells[:1], CellErrors(), on_nodes=True)
    assert printed_plan.ON_THE_NODE in capsys.readouterr().out


def test_an_estimate_goes_by_what_such_work_took_before(cell, tmp_path):
    [planned], _ = inspect([cell(0, "quant=rtn3")])
    store = Store(tmp_path / "store")
    pieces = list(planned.pieces.values())
    scored, weights = pieces[0], next(piece for piece in pieces if piece.kind == "weights")
    first = estimate.WorkEstimator(store, Memo()).estimate(scored)
    parameters = parameters_of(empty_model(scored.run.source.path))
    assert first.seconds > 0 and first.disk == 5 * estimate.BYTES_A_QUESTION
    assert first.memory > estimate.LIBRARIES + 4 * parameters
    with store.create("records", scored.made_from) as entry:  # 5 questions of 100 tokens, 500 tokens a second
        work = estimate.scoring_work(parameters, 500)
        write_cost(entry, EntryCost("scoring", 1.0, work, tokens=500, questions=5))
    estimator = estimate.WorkEstimator(store, Memo())
    assert estimator.estimate(scored).seconds == pytest.approx(1, rel=0.01)
    made = estimator.estimate(weights)
    assert made.seconds > 0 and 10_000 < made.disk < 300_000
    (Path(entry.parent) / "broken").mkdir()
    (Path(entry.parent) / "broken" / COST_FILE).write_text("{")
    assert estimate.WorkEstimator(store, Memo()).estimate(scored).seconds == pytest.approx(1, rel=0.01)
    assert json.loads((store.path("records", scored.made_from) / COST_FILE).read_text())["what"] == "scoring"


def test_a_small_pieces_fixed_costs_are_no_measure_of_a_large_one(tmp_path):
    store = Store(tmp_path / "store")
    for number, (seconds, work) in enumerate([(2.0, 1e6)] * 9 + [(10.0, 1e9)] * estimate.NEAREST):
        with store.create("records", {"task": "t", "limit": None, "number": number}) as entry:
            write_cost(entry, EntryCost("scoring", seconds, work))
    estimator = estimate.WorkEstimator(store, Memo())
    piece = SimpleNamespace(is_served=False, is_kept_on_cpu=False, is_elsewhere=False, gpus=1)
    seconds = [estimator._seconds("scoring", work, piece) for work in (2e9, 1e6)]
    assert seconds == pytest.approx([20, 2])


@pytest.mark.parametrize("parallel", [[0, 1], None, ["2"], 3])
def test_an_entry_whose_number_of_gpus_cannot_be_read_is_left_out(tmp_path, parallel):
    store = Store(tmp_path / "store")
    for number, written in enumerate(([2, 1], parallel)):
        with store.create("records", {"task": "t", "limit": None, "number": number, "parallel": written}) as entry:
            write_cost(entry, EntryCost("vllm", 1.0, 1e6))
    assert dict(estimate.WorkEstimator(store, Memo())._speeds) == {("vllm", False): [(1e6, 5e5)]}


@pytest.mark.parametrize(("quant", "indexed"), [("none", False), ("rtn3", True), ("float16", True)])
def test_a_plan_needs_no_weights_and_a_run_does(cell, capsys, tmp_path, quant, indexed):
    whole = cell(0, f"quant={quant}")
    folder = tmp_path / "bare"
    shutil.copytree(whole.config.model.path, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    if indexed:
        index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    given = [f"quant={quant}", f"model.path={folder}"]
    printed_plan.show([cell(1, *given, "plan=true")], CellErrors())
    shown = capsys.readouterr().out
    assert f"({folder}) are not here" in shown and "An estimate" in shown and "download" not in shown
    _, [error] = inspect([cell(2, *given)])
    assert "lacks" in error if indexed else "holds no weights" in error


@pytest.mark.parametrize("gpu", [None, Gpu("NVIDIA H200", 139 * 2**30)])
def test_an_estimate_names_the_processor_that_it_is_for(cell, capsys, monkeypatch, gpu):
    install_vllm(monkeypatch)
    monkeypatch.setattr(estimate, "gemm_speed", lambda device: 1e12)
    for module in (assumed_gpu, estimate, printed_gpus, printed_plan):
        monkeypatch.setattr(module, "gpu_here", lambda: gpu)
    shown, seconds = {}, {}
    for gpus in (0, 1, 8):
        engine = ["scoring.engine=vllm", f"scoring.vllm.tensor_parallel={gpus}"] if gpus else []
        one = cell(gpus, "quant=none", *engine)
        printed_plan.show([one], CellErrors())
        shown[gpus] = " ".join(capsys.readouterr().out.split())
        [planned], _ = inspect([one])
        piece = next(iter(planned.pieces.values()))
        seconds[gpus] = estimate.WorkEstimator(piece.run.store, Memo()).estimate(piece).seconds
    assert all(f"one after the other on this machine's {gpu.name if gpu else 'CPU'};" in shown[gpus] for gpus in (0, 1))
    otherwise = "1 GPU, one NVIDIA H200" if gpu else "this machine's CPU"
    assert "vLLM" not in shown[0] and f"otherwise of {otherwise}." in shown[1]
    name, machine = (gpu.name, "this machine's") if gpu else (assumed_gpu.A100_AT_WORK, "another machine's")
    assert f"otherwise of 8 GPUs, each one {name}." in shown[8] and f"one after the other on {machine}" in shown[8]
    speed = 0.3e12 if gpu else assumed_gpu.A100_SPEED
    assert seconds[0] == pytest.approx(seconds[1]) and seconds[1] / seconds[8] == pytest.approx(8 * speed / 0.3e12)


def test_work_that_is_kept_on_the_cpu_of_a_machine_with_a_gpu_goes_by_what_the_cpu_took(cell, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "gemm_speed", {"cuda": 1e14, "cpu": 1e12}.__getitem__)
    for module in (assumed_gpu, estimate, printed_gpus, printed_plan):
        monkeypatch.setattr(module, "gpu_here", lambda: Gpu("NVIDIA H200", 139 * 2**30))
    cells = [cell(0, "quant=none", "model.device=cpu"), cell(1, "quant=none")]
    [[on_cpu, *_], [on_gpu, *_]] = [list(one.pieces.values()) for one in inspect(cells)[0]]
    printed_plan.show(cells[:1], CellErrors())
    shown = capsys.readouterr().out
    assert "one after the other on this machine's CPU;" in shown and "H200" not in shown
    store = on_cpu.run.store
    assumed = [estimate.WorkEstimator(store, Memo())._seconds("scoring", 1e9, piece) for piece in (on_cpu, on_gpu)]
    assert assumed == pytest.approx([1 / 300, 1 / 30_000])
    for number, (seconds, gpu_bytes) in enumerate([(20.0, 0), (5.0, 2**20)]):  # both were measured where there is a GPU
        with store.create("records", {"task": "t", "limit": None, "number": number}) as entry:
            write_cost(entry, EntryCost("scoring", seconds, 1e9, peak_gpu_memory_bytes=gpu_bytes))
    known = [estimate.WorkEstimator(store, Memo())._seconds("scoring", 1e9, piece) for piece in (on_cpu, on_gpu)]
    assert known == pytest.approx([20, 5])


@pytest.mark.parametrize(
    ("seconds", "said"), [(20, "20 seconds"), (200, "3.3 minutes"), (9000, "2.5 hours"), (2e5, "2.3 days")]
)
def test_durations_are_said_in_units_that_fit(seconds, said):
    assert printed_plan._duration(seconds) == said
