"""The signs by which a curve shows what is wrong with a run, one function each.

Each sign has thresholds to be seen at first; once seen it is `held` while it is over `HOLD` of them, so that a value
that hovers about its threshold does not come and go. Rises and falls are compared with the run's own noise: a change of
a mean counts from `SIGMAS` standard errors on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from core.diagnosis.advice import calm, less, rate_words, spelled, usual_rates
from core.diagnosis.curve import Curve, mean, noise, shakes, window_means
from core.diagnosis.finding import Finding, Kind, RunFacts
from core.diagnosis.rewards import (
    FEWEST,
    PAIRED,
    chance,
    displaced,
    far_off,
    losing,
    one_answer,
    still_tells,
)
from core.search.guard import blames_data
from core.values import Scalar, number

HOLD = 0.6
SIGMAS = 4.0

_KNOWN = 0.01
"""A loss of pairs below this is that of pairs which are known by heart."""

HARDLY = 0.015
"""A loss that has fallen by less than this share of its first has hardly moved …"""

LITTLE = 0.05
"""… and by less than this, little: too little where the rate is below a third of what is usual."""

_NORMAL_MEDIAN = 0.6745
"""Of the distances of normal values from their mean, the median in standard deviations."""

Sign = Callable[[Curve, RunFacts, float], Finding | None]
"""The finding where the curve shows the sign, with thresholds × the third argument."""


def not_learning(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """Nothing can be learnt: no gradients, no labels, or a loss that never changes."""
    stretches = curve.stretches
    # Later first logs are of updates that may have done the harm.
    if curve.bad == 1 and all(not math.isfinite(s.loss) for s in stretches):
        return Finding(
            "not_learning", "error",
            "the loss is not a number from the first log on (step 1), before training could do any harm",
            "look at the data (is every label masked, are answers empty?), and try bf16 or fp32 in place of fp16",
        )  # fmt: skip
    if blames_data(run.diverged):
        return Finding("not_learning", "error", run.diverged, _labels(run))
    losses = curve.losses
    if run.stage == "ppo":
        return _nothing_to_choose(curve)
    # Pairs that are told apart for sure cost nothing, and pull no more.
    known = run.stage in PAIRED and bool(losses) and losses[-1] < _KNOWN
    if len(losses) >= 2 and not any(losses) and not known:
        return Finding(
            "not_learning", "error",
            f"the loss is exactly 0 in all {len(losses)} logs: every label is masked, there is nothing to learn from",
            _labels(run),
        )  # fmt: skip
    norms = [s.grad_norm for s in stretches if s.grad_norm is not None]
    if len(norms) >= 3 and max(norms[-3:]) <= 1e-8 and not known:
        return Finding(
            "not_learning", "error",
            f"the gradients are {'zero' if max(norms[-3:]) == 0 else 'almost zero'} in the last "
            f"{_trailing(norms)} logs (loss {losses[-1]:.4g}): nothing is learnt",
            "check that something can be trained (finetuning_type, lora_target, trainable modules) and that labels are "
            "not masked",
        )  # fmt: skip
    after = losses[curve.warm :]
    still = len(after) >= 5 and max(after) - min(after) <= 1e-6 * abs(after[0])
    if curve.bad is None and still and not known:
        return Finding(
            "not_learning", "error",
            f"the loss is {after[-1]:.4g} in all of {len(after)} logs: a constant, as if nothing were trained",
            "check that parameters are not frozen (finetuning_type, lora_target) and that the rate is not 0",
        )  # fmt: skip
    return None


def _nothing_to_choose(curve: Curve) -> Finding | None:
    """Of stage ppo: no answer earns more than another."""
    norms = [s.grad_norm for s in curve.stretches if s.grad_norm is not None]
    if len(norms) < FEWEST or max(norms[-FEWEST:]) > 1e-8:
        return None
    rewards = curve.measured("reward")
    earned = f" ({spelled(rewards[-1])})" if rewards else ""
    return Finding(
        "not_learning", "error",
        f"the gradients are zero in the last {_trailing(norms)} logs: every answer earns the same{earned}, so that "
        "there is nothing to choose",
        "check that the reward model tells answers apart (stage rm: its reward accuracy), and that answers are not cut "
        "off after a token or two (max_new_tokens)",
    )  # fmt: skip


def diverging(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The loss was lost, or rises for long."""
    if run.diverged:
        return Finding("diverging", "error", run.diverged, *calm(run))
    if curve.bad is not None:
        text = f"the loss is not a number at step {curve.bad}"
        return Finding("diverging", "error", text, *calm(run))
    losses = curve.losses
    if len(losses) - curve.warm < FEWEST or run.stage == "ppo":
        return None
    return _ruined(curve, run, factor) or _rising(curve, run, factor)


def _ruined(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The first updates have lost what the model knew, and it never came back."""
    losses = curve.losses
    size = max(3, len(losses) // 8)
    since = window_means(losses[1:], size)
    first, least, now = losses[0], min(since), since[-1]
    needed = max(0.3 * abs(first), SIGMAS * noise(losses[1:]))
    # The first loss is that of the model as it was; of small batches it may be a lucky one.
    stays = least - first > 0.5 * needed * factor and now - first > needed * factor
    if not stays and not _all_above(losses[1:], first, factor):
        return None
    text = (
        f"the training loss rose from {spelled(first)} (its first) to {spelled(max(losses[1:]))} and is still at "
        f"{spelled(now)} at step {curve.step}"
    )
    return Finding("diverging", "error", text, *calm(run), step=curve.stretches[0].step)


def _rising(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The loss has risen from its best, for long."""
    losses = curve.losses
    size = max(3, len(losses) // 8)
    means = window_means(losses, size)
    least = min(range(len(means)), key=lambda i: means[i])
    start, best, now = means[0], means[least], means[-1]
    # Few values may be close together by luck.
    caution = 1 + FEWEST / len(losses)
    error = caution * max(noise(losses), noise(losses[-3 * size :])) * math.sqrt(2 / size)
    rise = now - best
    needed = max(0.08 * abs(best), 1.5 * SIGMAS * error, 0.3 * (start - best))
    sustained = len(means) > size and min(means[-size:]) - best > 0.4 * needed * factor
    stays = sustained and rise > needed * factor
    if not stays and not _all_above(losses, max(best, losses[0]), factor):
        return None
    if run.stage in PAIRED and now <= start:
        # New rows cost what all of them did at first, where those before are known by heart.
        return None
    at = curve.stretches[least + size - 1].step
    text = f"the training loss rose from {spelled(best)} (around step {at}) to {spelled(now)} (step {curve.step})"
    severe = now > 1.5 * best and now > start
    return Finding("diverging", "error" if severe else "warning", text, *calm(run), step=at)


def _all_above(losses: Sequence[float], level: float, factor: float) -> bool:
    """Whether every one of the latest losses is far above `level`: of wild ones no mean is certain, but this is."""
    latest = losses[-max(FEWEST, len(losses) // 3) :]
    return len(losses) >= FEWEST and min(latest) > (1 + 0.5 * factor) * level > 0


def overfitting(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The training loss falls while the evaluation loss rises."""
    evals = curve.evals
    if len(evals) < 4 or len(curve.stretches) < FEWEST or run.stage == "ppo":
        return None
    if run.stage in PAIRED and still_tells(curve):
        return None
    values = [value for _, value in evals]
    # The lowest of many noisy evaluations is low by luck: means of three are compared where there are enough.
    wide = 3 if len(values) >= FEWEST else 1
    means = window_means(values, wide)
    least = min(range(len(means)), key=lambda i: means[i])
    if least > len(means) - 3:
        return None
    step, best = evals[least + wide // 2][0], means[least]
    error = noise(values) * math.sqrt(2 / wide)
    if min(means[-2:]) - best <= factor * max(0.03 * abs(best), SIGMAS * error):
        return None
    size = max(2, len(curve.stretches) // 10)
    before = [s.loss for s in curve.stretches if s.step <= step][-size:]
    losses = curve.losses
    if not before:
        return None
    then, latest = mean(before), mean(losses[-size:])
    error = noise(losses[-3 * size :]) * math.sqrt(1 / size + 1 / len(before))
    if then - latest <= factor * max(0.01 * abs(then), 2 * error):
        return None
    text = (
        f"the evaluation loss rose from {spelled(best)} (step {step}) to {spelled(means[-1])} while the training loss "
        f"fell from {spelled(then)} to {spelled(latest)}: it learns the training data by heart"
    )
    return Finding("overfitting", "warning", text, *less(run, step), step=step)


def oscillating(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The loss goes up and down, more than small batches explain, and does not get lower."""
    if run.stage == "ppo" or (run.stage in PAIRED and _is_known(curve)):
        return None
    text = _shaking_evaluations(curve, factor) or _shaking_losses(curve, factor)
    if text is None:
        return None
    advice, changes = rate_words(run, 1 / 3)
    if run.effective_batch is not None:
        advice += f", or a larger batch ({run.effective_batch} → {2 * run.effective_batch} rows)"
    return Finding("oscillating", "warning", text, advice, changes, step=curve.step)


def _is_known(curve: Curve) -> bool:
    """Whether most of the loss is gone: what is left of that of pairs shakes by its nature."""
    losses = curve.losses
    if not losses:
        return False
    size = max(3, len(losses) // 8)
    return mean(losses[-size:]) < 0.5 * mean(losses[:size])


def _shaking_losses(curve: Curve, factor: float) -> str | None:
    """The training loss shakes much more than it did at first, when the rate was low still."""
    losses = curve.losses
    count = len(losses) - curve.warm
    third = max(2 * FEWEST, count // 3)
    if count < 5 * FEWEST or min(losses) <= 0 or _improves(losses, third):
        return None
    # The median leaves a lone spike out of what counts now; what was usual is to be rather too much than too little.
    now = _middle(shakes(losses[-third:])) / _NORMAL_MEDIAN
    early = shakes(losses[: max(2 * FEWEST, len(losses) // 3)])
    usual = max(0.01, math.sqrt(mean(v * v for v in early)))
    if now < 0.04 * factor or now < 4 * factor * usual:
        return None
    latest = losses[-third:]
    return (
        f"the training loss shakes between {spelled(min(latest))} and {spelled(max(latest))} since step "
        f"{curve.stretches[-third].step}, {now / usual:.1f} times as much as at first, and does not get lower"
    )


def _shaking_evaluations(curve: Curve, factor: float) -> str | None:
    """The evaluation loss shakes: it is of the same rows each time, so that batches are no excuse."""
    values = [value for _, value in curve.evals[-FEWEST:]]
    if len(values) < FEWEST or min(values) <= 0 or _improves(values, FEWEST // 2):
        return None
    now = _middle(shakes(values)) / _NORMAL_MEDIAN
    if now < 0.06 * factor:
        return None
    return (
        f"the evaluation loss shakes between {spelled(min(values))} and {spelled(max(values))} in its last {FEWEST} "
        "evaluations, of the same rows each time, and does not get lower"
    )


def _improves(values: Sequence[float], size: int) -> bool:
    """Whether the last `size` values are clearly lower than those before."""
    late, before = values[-size:], values[-2 * size : -size]
    error = noise(late) * math.sqrt(2 / size)
    return mean(before) - mean(late) > max(2 * error, 0.01 * mean(before))


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def too_slow(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The loss has hardly moved from the start."""
    losses = curve.losses
    count = len(losses) - curve.warm
    if count < 2 * FEWEST or curve.done < 0.4 or run.stage == "ppo":
        return None
    size = max(4, len(losses) // 8)
    means = window_means(losses, size)
    first = losses[: max(3, len(losses) // 12)]
    start, least, now = mean(first), min(means), means[-1]
    error = noise(losses) * math.sqrt(1 / size + 1 / len(first))
    low, high = usual_rates(run)
    rate = run.learning_rate
    timid = rate is not None and rate < low / 3
    share = (LITTLE if timid else HARDLY) / factor
    limit = share * abs(start)
    if _still(curve, share):
        # Evaluations hardly jitter: the training loss need only not contradict them.
        by_chance = min(2 * error, LITTLE * abs(start))
        moved = error > 0.1 * abs(start) or start - now > max(limit, by_chance)
    else:
        moved = error > limit or start - least > limit
    if moved or now - start > max(2 * error, limit):
        return None
    if rate is not None and rate >= low:
        advice = (
            f"the rate {number(rate)} is not low for {run.finetuning_type}: look at the data (masked labels, wrong "
            "format or template) and at what is trained; the model may also know this data already"
        )
        changes: dict[str, Scalar] = {}
    else:
        # Far below what is usual, one step at a time would take as many trials.
        far = rate is not None and rate < low / 10
        advice, changes = rate_words(run, low / rate if far and rate else 3)
        advice += f" (usual: {number(low)} – {number(high)})"
    norm = _norm(curve)
    fell = f"at {spelled(now)}, where it began"
    if now < start:
        fell = (
            f"from {spelled(start)} to {spelled(now)}, by {100 * (start - now) / abs(start):.1f} %"
        )
    seen = "" if norm is None else f", with gradients of {norm:.2g}"
    if _still(curve, share):
        seen += f"; the evaluation loss went from {spelled(curve.evals[0][1])} to {spelled(curve.evals[-1][1])}"
    text = f"the training loss has hardly moved in {curve.step} steps: {fell}{seen}"
    return Finding("too_slow", "advice", text, advice, changes, step=curve.step)


def _still(curve: Curve, share: float) -> bool:
    """Whether the evaluation loss has fallen by less than `share` of its first, over four evaluations or more."""
    values = [value for _, value in curve.evals]
    return len(values) >= 4 and values[0] - min(values) < share * abs(values[0])


def plateau(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The loss fell a little and has then stood still, although the rate is still high."""
    losses = curve.losses
    count = len(losses) - curve.warm
    if count < 3 * FEWEST or curve.done < 0.5 or run.stage == "ppo":
        return None
    size = max(FEWEST, round(0.15 * len(losses) / max(curve.done, 0.5)))
    if count < 3 * size + FEWEST // 2:
        return None
    parts = [mean(losses[len(losses) - (i + 1) * size : len(losses) - i * size]) for i in (2, 1, 0)]
    start = mean(losses[:3])
    error = noise(losses[-3 * size :]) * math.sqrt(2 / size)
    still = max(0.002 * abs(parts[0]), 1.5 * error) / factor
    fallen = start - parts[-1]
    if error > HARDLY * abs(parts[0]) / factor:
        return None
    moving = max(parts) - min(parts) > still or min(losses) <= 0
    if (
        moving
        or not HARDLY * start * factor < fallen < 0.1 * start / factor
        or not _rate_is_high(curve, 3 * size)
    ):
        return None
    evals = [v for s, v in curve.evals if s >= curve.stretches[-3 * size].step]
    half = len(evals) // 2
    if half and mean(evals[:half]) - mean(evals[-half:]) > 0.002 * abs(evals[0]) / factor:
        return None
    since = curve.stretches[-3 * size].step
    text = (
        f"the training loss fell from {spelled(start)} to {spelled(parts[0])} and has stood there since step {since} "
        f"({spelled(parts[-1])} at step {curve.step})"
    )
    advice = (
        f"more of the same will not help: end near step {since}, or let the rate decay sooner; if the answers are not "
        "good enough, a larger lora_rank or more varied data"
        if run.finetuning_type == "lora"
        else f"more of the same will not help: end near step {since}, or let the rate decay sooner"
    )
    return Finding("plateau", "advice", text, advice, step=since)


SIGNS: Mapping[Kind, Sign] = {
    "not_learning": not_learning,
    "diverging": diverging,
    "far_off": far_off,
    "losing": losing,
    "displaced": displaced,
    "overfitting": overfitting,
    "oscillating": oscillating,
    "chance": chance,
    "one_answer": one_answer,
    "too_slow": too_slow,
    "plateau": plateau,
}
"""All signs, in the order of precedence."""


def _rate_is_high(curve: Curve, count: int) -> bool:
    """Whether the rate has not decayed much in the last `count` stretches: a schedule's end stands still by itself."""
    rates = [s.rate for s in curve.stretches if s.rate is not None]
    return not rates or min(r for r in rates[-count:]) >= 0.4 * max(rates)


def _labels(run: RunFacts) -> str:
    dropped = ""
    if run.dropped_rows:
        dropped = f" ({run.dropped_rows} of {run.dropped_rows + run.train_rows} rows were left out for that)"
    return f"check the data's format and template, and whether cutoff_len cuts the answers off{dropped}"


def _norm(curve: Curve) -> float | None:
    norms = sorted(s.grad_norm for s in curve.stretches if s.grad_norm is not None)
    return norms[len(norms) // 2] if norms else None


def _trailing(norms: list[float]) -> int:
    return next((i for i, v in enumerate(reversed(norms)) if v > 1e-8), len(norms))
