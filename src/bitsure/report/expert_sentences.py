"""The page's section on mixtures of experts: what the gates decide now, what that costs, and what experts learned from."""

from __future__ import annotations

from bitsure.results.experts import ExpertCalibration, Experts, RoutingChange, WindowMean

NAMED = 5  # experts with few tokens that are named


def expert_sentences(experts: Experts | None) -> list[str]:
    """Return the sentences; none for a model without experts."""
    if experts is None:
        return []
    routing = _routing(experts.routing) if experts.routing else []
    return [*routing, *(_calibration(experts.calibration, experts.number) if experts.calibration else [])]


def _routing(routing: RoutingChange) -> list[str]:
    most = max(routing.layers, key=routing.layers.__getitem__)
    sentences = [
        f"{_interval(routing.changed, '.1%')} of the gates' decisions on {routing.changed.windows} windows of held-out text "
        f"choose another set of experts; most at {most}, {routing.layers[most]:.1%}.",
        f"The text's next token loses {_interval(routing.loss)} of its probability, and {_interval(routing.loss_same_experts)} "
        f"if each token keeps the experts of full precision: other decisions cost {_interval(routing.loss_by_routing)}. "
        f"{_conclusion(routing.loss_by_routing)}",
    ]
    changed, same = routing.loss_where_changed, routing.loss_where_same
    if changed and same:
        sentences.append(
            f"Tokens with another set at some gate lose {_interval(changed)}, the others {_interval(same)}; rounding that "
            "moves a token far changes both its experts and its probability, so that this difference is no effect of routing."
        )
    return sentences


def _conclusion(cost: WindowMean) -> str:
    if cost.ci_low is None or cost.ci_high is None or cost.ci_low <= 0 <= cost.ci_high:
        return "That is too uncertain to say that routing explains any of the loss."
    return "Routing explains that part of the loss." if cost.ci_low > 0 else "The tokens are better off with other experts."


def _calibration(calibration: ExpertCalibration, number: int) -> list[str]:
    if calibration.all_experts:
        return [f"Each of the {number:,} experts learned from every token of the calibration text."]
    if not calibration.few:
        return []
    least = sorted(calibration.few, key=calibration.few.__getitem__)
    named = ", ".join(f"{name} ({calibration.few[name]:,})" for name in least[:NAMED])
    more = f" and {len(least) - NAMED} more" if len(least) > NAMED else ""
    return [
        f"{len(least):,} of {number:,} experts were given fewer calibration tokens than their inputs have channels: {named}"
        f"{more}. calib.all_experts=true gives them all."
    ]


def _interval(mean: WindowMean, form: str = "+z.2g") -> str:
    if mean.ci_low is None or mean.ci_high is None:
        return f"{mean.value:{form}}"
    return f"{mean.value:{form}} [{mean.ci_low:{form}}, {mean.ci_high:{form}}]"
