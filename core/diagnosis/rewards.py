"""The signs of what a model is rewarded for: of pairs and tags (rm, dpo, kto), and of answers that it draws (ppo).

As in `signs`, thresholds are × the third argument: what was seen once is held while it is nearly over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.diagnosis.advice import calm, rate_words, spelled, usual_rates
from core.diagnosis.curve import Curve, mean, noise, window_means
from core.diagnosis.finding import Finding, RunFacts
from core.values import number

PAIRED = ("rm", "dpo", "kto")
"""Stages that compare answers with each other or with a reference: their loss begins where nothing is told apart."""

FEWEST = 8
"""Values before a measure is judged."""

_SIGMAS = 4.0
_CHANCE = 0.03
"""A reward accuracy this close to a half is chance, …"""
_TELLS = 0.6
"""… unless on validation data it is above this."""
_LOST = -1.0
"""Of dpo: at β = 0.1 a chosen answer with this reward has lost 10 nats, and is 20,000 times less likely."""
_FAR = 3.0
"""Times ppo_target. The weight of the penalty rises from 1 on; a policy that is this far has left it behind."""
_ALIKE = 0.05
"""Of the first entropy: what is left where answers have become all alike."""


def chance(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The answers that are better are not told from those that are worse."""
    values = curve.measured("reward_accuracy")
    late = values[len(values) // 2 :]
    if run.stage not in PAIRED or len(late) < FEWEST or curve.done < 0.4:
        return None
    error = _deviation(late) / math.sqrt(len(late))
    judged = curve.measured("eval_reward_accuracy")
    if abs(mean(late) - 0.5) > max(_CHANCE, 2 * error) / factor or 2 * error > 0.1:
        return None
    if judged and mean(judged[len(judged) // 2 :]) > _TELLS:
        return None
    low, high = usual_rates(run)
    text = (
        f"the reward accuracy stands at {mean(late):.2f} after {curve.step} steps, which is chance: it does not tell "
        "the better answers from the worse ones"
    )
    if run.learning_rate is not None and run.learning_rate < low / 3:
        advice, changes = rate_words(run, 3)
        advice += f" (usual: {number(low)} – {number(high)})"
        return Finding("chance", "warning", text, advice, changes, step=curve.step)
    advice = (
        "look at the data: are both answers the same or mixed up in many rows, and does cutoff_len leave what tells "
        "them apart?"
    )
    return Finding("chance", "warning", text, advice, step=curve.step)


def displaced(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """Both answers of the pairs become less likely, the chosen ones too (Pal et al. 2024, arXiv 2402.13228; Razin et
    al. 2024, arXiv 2410.08847)."""
    chosen, rejected = curve.measured("reward_chosen"), curve.measured("reward_rejected")
    compared = run.stage == "dpo" and run.pref_loss in ("sigmoid", "ipo", "hinge")
    if not compared or min(len(chosen), len(rejected)) < FEWEST:
        return None
    size = max(3, len(chosen) // 5)
    kept, lost = mean(chosen[-size:]), mean(rejected[-size:])
    if kept > _LOST * factor or lost > kept or kept > mean(chosen[:size]):
        return None
    text = (
        f"the rewards of both answers fall: of the chosen ones to {spelled(kept)}, of the rejected ones to "
        f"{spelled(lost)} (step {curve.step}), so that the chosen answers become less likely too"
    )
    advice = "add the supervised loss on the chosen answers (pref_ftx 0.1 – 1), or raise pref_beta"
    more, changes = rate_words(run, 1 / 3)
    return Finding(
        "displaced", "advice", text, f"{advice}, or {more}", changes | {"pref_ftx": 0.1},
        step=curve.step,
    )  # fmt: skip


def far_off(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The policy's answers are further from the reference than they are meant to be; or nearer than can be."""
    values = curve.measured("kl")
    if run.stage != "ppo" or len(values) < 3:
        return None
    size = min(5, len(values))
    now = mean(values[-size:])
    if len(values) >= FEWEST and now < -factor and max(values[-size:]) < 0:
        return Finding(
            "far_off", "warning",
            f"the KL divergence is {now:.2g} nats an answer over the last {size} rounds, and none can be below 0: "
            "the answers are not drawn from the policy as it is",
            "set top_p = 1 and top_k = 0", {"top_p": 1.0, "top_k": 0}, step=curve.step,
        )  # fmt: skip
    if run.kl_target is None or now <= factor * _FAR * run.kl_target:
        return None
    text = (
        f"the answers are {now:.3g} nats from the reference over the last {size} rounds (step {curve.step}), "
        f"{now / run.kl_target:.1f} times what ppo_target wants ({number(run.kl_target)})"
    )
    advice, changes = calm(run)
    return Finding(
        "far_off", "warning", text, f"{advice}, or raise ppo_kl_coef", changes, step=curve.step
    )


def losing(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The answers earn less than they did at first."""
    values = curve.measured("reward")
    if run.stage != "ppo" or len(values) < FEWEST:
        return None
    size = max(3, len(values) // 5)
    means = window_means(values, size)
    first, most, now = means[0], max(means), means[-1]
    caution = 1 + FEWEST / len(values)
    if first - now <= factor * max(
        _SIGMAS * caution * noise(values) * math.sqrt(2 / size), 0.02 * abs(first)
    ):
        return None
    at = curve.measures["reward"][means.index(most) + size - 1][0]
    text = (
        f"the mean reward fell from {spelled(most)} (around step {at}) to {spelled(now)} (step {curve.step}), below "
        f"its start ({spelled(first)})"
    )
    return Finding("losing", "warning", text, *calm(run), step=at)


def one_answer(curve: Curve, run: RunFacts, factor: float) -> Finding | None:
    """The policy has come to say the same to everything."""
    values = curve.measured("entropy")
    if run.stage != "ppo" or len(values) < FEWEST:
        return None
    size = max(3, len(values) // 8)
    first, now = mean(values[:size]), mean(values[-size:])
    if first <= 0 or now >= _ALIKE * first / factor:
        return None
    text = (
        f"the entropy fell from {spelled(first)} to {spelled(now)} nats a token (step {curve.step}): nothing is left "
        "to try out, and nothing new is learnt"
    )
    advice, changes = rate_words(run, 1 / 3)
    return Finding(
        "one_answer", "advice", text, f"{advice}, or raise ppo_kl_coef, which keeps answers varied",
        changes, step=curve.step,
    )  # fmt: skip


def still_tells(curve: Curve) -> bool:
    """Whether the reward accuracy on validation data is about as good as it was at its best: where a loss rises
    meanwhile, the model is only too sure of itself, and ranks as well as before."""
    values = curve.measured("eval_reward_accuracy")
    if len(values) < 3:
        return False
    return mean(values[-2:]) >= max(values) - max(0.02, noise(values))


def _deviation(values: Sequence[float]) -> float:
    middle = mean(values)
    return math.sqrt(mean((value - middle) ** 2 for value in values))
