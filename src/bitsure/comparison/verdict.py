"""May it be shipped? Per task: is the quantized model non-inferior, inferior, or is that not decided by these questions."""

from __future__ import annotations

from bitsure.comparison import noise_control as control
from bitsure.comparison.compare import BASELINE_GUESSING, PRIMARY, was_compared
from bitsure.config.schema import VerdictSettings
from bitsure.metrics.measure import ECE, MACRO

NON_INFERIOR, INFERIOR, UNDECIDED = "non-inferior", "inferior", "undecided"
FEWEST = 30  # questions, or clusters of them; an interval of fewer says too little of their spread
NOISE_SAID = {PRIMARY: "the right answer's probability", "nll": "the NLL of a token"}
SAID = {"accuracy": "the loss of accuracy", "nll": "the rise of the NLL", ECE: "the rise of the calibration error"}


def judge(comparison: dict[str, dict[str, dict]], verdict: VerdictSettings, level: float) -> dict:
    """verdict.json: {verdict, strict, level, noise_control, tasks: {task: {verdict, sentence, warning, margins: {metric: …}}}}.

    A loss is how much worse the quantized model is, in the metric's own unit. A metric is non-inferior where its interval's
    upper end is below the margin, inferior where the lower end is above it, undecided of fewer than FEWEST clusters. The
    calibration error's interval covers less than it says: it can leave a task undecided but not make it inferior. A task is
    inferior if any metric is, non-inferior if all are; one of which nothing joined is undecided. What has no choices has no
    calibration error, and a whole text no accuracy: its verdict is of what there is. `smallest_detectable` is the change in
    true_label_prob (of texts, in the NLL) that the task's test would most likely find.
    noise_control: {task: {places, sentence}} where one was scored, else null.
    """
    margins = {
        "accuracy": verdict.accuracy_margin,
        "nll": verdict.nll_margin,
        ECE: verdict.calibration_error_margin,
    }
    tasks = {}
    for task, values in comparison.items():
        if task == MACRO:
            continue
        if not was_compared(values):
            tasks[task] = _not_compared(task, values)
            continue
        judged = {
            name: _judge_one(values[name], margin, worse=-1 if name == "accuracy" else 1, decisive=name != ECE)
            for name, margin in margins.items()
            if name in values
        }
        overall, warning = _together([one["verdict"] for one in judged.values()]), _warning(values)
        tasks[task] = {
            "verdict": overall,
            "sentence": _sentence(task, overall, judged, level) + (f" {warning}" if warning else ""),
            "warning": warning,
            "margins": judged,
            "smallest_detectable": values.get(PRIMARY, values["nll"]).get("smallest_detectable"),
        }
    together = _together([one["verdict"] for one in tasks.values()])
    around = {task: against_noise(task, values) for task, values in comparison.items() if f"{control.PREFIX}nll" in values}
    return {"verdict": together, "strict": verdict.strict, "level": level, "noise_control": around or None, "tasks": tasks}


def against_noise(task: str, values: dict[str, dict]) -> dict:
    """Where the quantized model lies within what noise of the same output error does: {metric: below | within | above, …}."""
    names = [name for name in values if f"{control.PREFIX}{name}" in values]
    places = {name: control.place(values[name]["value"], values[f"{control.PREFIX}{name}"]) for name in names}
    name = PRIMARY if PRIMARY in names else "nll"
    p, noise = values[name], values[f"{control.PREFIX}{name}"]
    sentence = (
        f"{task}: noise of the same output error ({noise['n']} seeds) changes {NOISE_SAID[name]} by "
        f"{noise['ci_low']:+.4f} to {noise['ci_high']:+.4f}; quantization, by {p['value']:+.4f}, is {places[name]} that."
    )
    if "kl_divergence" in names:
        noise_kl = values[f"{control.PREFIX}kl_divergence"]["value"]
        sentence += f" Mean KL {values['kl_divergence']['value']:.4f}, of the noise {noise_kl:.4f}."
    slope = values.get("harm_slope", {})
    if "p_value" in slope:
        hit = "hit harder than by such noise" if slope["p_value"] <= 0.05 else "not shown to be hit harder than by such noise"
        sentence += f" Unsure questions are {hit} (p = {slope['p_value']:.2g}, unadjusted)."
    return {"places": places, "sentence": sentence}


def sentences(judged: dict) -> list[str]:
    """The verdict in words, task by task."""
    control_said = [one["sentence"] for one in (judged["noise_control"] or {}).values()]
    return [task["sentence"] for task in judged["tasks"].values()] + control_said


def _judge_one(one: dict, margin: float, worse: int, decisive: bool) -> dict:
    """worse: +1 where a larger value is worse, −1 where a smaller one is. decisive: whether it can make a task inferior."""
    loss = worse * one["value"] + 0.0  # no −0
    low, high = sorted((worse * one["ci_low"], worse * one["ci_high"]))
    said = NON_INFERIOR if high < margin else INFERIOR if low > margin else UNDECIDED
    if one.get("n_clusters", one["n"]) < FEWEST or (said == INFERIOR and not decisive):
        said = UNDECIDED
    return {"verdict": said, "loss": loss, "ci_low": low, "ci_high": high, "margin": margin, "n": one["n"]} | (
        {"n_clusters": one["n_clusters"]} if "n_clusters" in one else {}
    )


def _not_compared(task: str, values: dict[str, dict]) -> dict:
    alone = values["questions_only_baseline"]["value"], values["questions_only_quantized"]["value"]
    said = f"{task}: undecided. None of its questions is in both runs ({alone[0]:,} in full precision, {alone[1]:,} quantized)."
    return {"verdict": UNDECIDED, "sentence": said, "warning": None, "margins": {}, "smallest_detectable": None}


def _warning(values: dict[str, dict]) -> str | None:
    """What makes the verdict worth little: a model that guesses loses nothing by being quantized."""
    above = values.get(BASELINE_GUESSING)
    if above is None or above["ci_low"] > 0:
        return None
    accuracy = values["accuracy"]["baseline"]
    said = f"accuracy {accuracy:.3f}, guessing {accuracy - above['value']:.3f}"
    said += f", difference [{above['ci_low']:+.3f}, {above['ci_high']:+.3f}]"
    return f"Full precision itself is not clearly above guessing here ({said}): a comparison says little."


def _together(verdicts: list[str]) -> str:
    if INFERIOR in verdicts:
        return INFERIOR
    return NON_INFERIOR if set(verdicts) == {NON_INFERIOR} else UNDECIDED


def _sentence(task: str, overall: str, judged: dict[str, dict], level: float) -> str:
    if overall == NON_INFERIOR:
        worst = max(judged, key=lambda name: judged[name]["ci_high"] / judged[name]["margin"])
        return (
            f"{task}: non-inferior. Every loss keeps within its margin; the nearest is {SAID[worst]}, "
            f"{_loss(judged[worst])} with a margin of {judged[worst]['margin']:g}."
        )
    if overall == INFERIOR:
        which = [name for name in judged if judged[name]["verdict"] == INFERIOR]
        losses = "; ".join(f"{SAID[name]} {_loss(judged[name])}, margin {judged[name]['margin']:g}" for name in which)
        return f"{task}: inferior. Beyond its margin: {losses}."
    open_ = [name for name in judged if judged[name]["verdict"] == UNDECIDED]
    losses = "; ".join(f"{SAID[name]} {_loss(judged[name])}, margin {judged[name]['margin']:g}" for name in open_)
    first = next(iter(judged.values()))
    n, clusters = first["n"], first.get("n_clusters")
    if (clusters or n) < FEWEST:
        asked = f"{n:,} questions" + (f" in {clusters:,} clusters" if clusters else "")
        return f"{task}: undecided. {asked} are too few: an interval of fewer than {FEWEST} is not to be relied on."
    return f"{task}: undecided. At {level:.0%} these {n:,} questions do not settle {losses}."


def _loss(one: dict) -> str:
    return f"{one['loss']:+.4f} [{one['ci_low']:+.4f}, {one['ci_high']:+.4f}]"
