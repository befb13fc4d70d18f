"""Stops a trial that diverges, early and with a reason; pure, fed one log at a time.

What it must not do is stop a run for noise: batches of one or two examples make single losses
jump by half their size. Three things keep it calm. The median of the last three losses goes into
the average, so that a lone spike leaves no trace; the average takes a handful of logs to move; and
a rise counts only beyond what the run's own jitter explains.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from core.search.smoothing import ALPHA, JITTER_PER_SIGMA, Ema


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """When to stop. Losses are in nats per token, "best" is the lowest smoothed loss so far.

    `explosion_ratio`: stop at once above this multiple of the best.
    `rise_ratio`: stop above this multiple, if also above the start, for `rise_logs` logs in a row
    after warm-up. `min_rise`: no smaller rise above the best ever stops a run (ratios mean nothing
    near zero). `lost_share`: an explosion must also undo this share of what training has gained: a model that knows its
    data by heart may meet rows that it does not know.
    `noise_sigmas`: a rise must exceed this many standard deviations of the two averages compared;
    the highest and the lowest of 500 noisy averages lie five or six apart by chance alone.
    `spike_ratio` and `spike_sigmas`: a single loss this far above the average is warned of.
    `from_best`: whether a rise counts from the best as well as from the start, and a loss of exactly 0 says something.
    `kl_ratio`: in stage ppo, stop where answers are so many times as far from the reference as alignment.ppo_target
    wants, in `kl_logs` rounds in a row. The weight of the penalty changes by at most 0.2 × answers / 10,000 a round: it
    cannot bring such a policy back before the run ends, and what a reward model says of answers that are so unlike
    those that it has learnt from means nothing.
    `overflow_logs`: so many overflowing gradients in a row stop a run with loss scaling.
    `start_logs`: the start is the lowest average of so many first logs. `learned_loss`: an exact zero after an average
    below this is a model that knows its data by heart.
    """

    explosion_ratio: float = 4.0
    rise_ratio: float = 1.5
    rise_logs: int = 3
    min_rise: float = 0.3
    lost_share: float = 0.25
    noise_sigmas: float = 7.0
    spike_ratio: float = 2.0
    spike_sigmas: float = 6.0
    overflow_logs: int = 5
    start_logs: int = 5
    learned_loss: float = 0.01
    alpha: float = ALPHA
    from_best: bool = True
    kl_ratio: float = 10.0
    kl_logs: int = 3


_PAIRS = GuardSettings(from_best=False)


def settings_of(stage: str) -> GuardSettings:
    """The settings for a stage. Losses that compare two answers, or one with a reference (rm, dpo, kto), begin where
    the model cannot tell them apart (ln 2, for most) and come down to almost nothing on what is known by heart; rows
    that are not known then cost as much as at first. So they are held against their start alone."""
    return _PAIRS if stage in ("rm", "dpo", "kto") else GuardSettings()


_ZERO = "loss is exactly 0"


def blames_data(reason: str) -> bool:
    """Whether a run that was stopped for `reason`, in the guard's words or those of its ending, was broken by its data
    or numbers and not by its learning rate: a loss of exactly 0, or none that is a number before the first update."""
    return reason.startswith(_ZERO) or _FIRST_LOSS.fullmatch(reason) is not None


_FIRST_LOSS = re.compile(r"(its )?loss is .+ at step 1")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard thinks at a step, and why, in words and numbers for the user."""

    action: Literal["warn", "stop"]
    reason: str
    step: int


class Guard:
    """Watches one trial. `loss_scaling` is for fp16, whose gradients overflow now and then.

    Under loss scaling an overflow only means that one step is skipped and the scale halved.
    """

    def __init__(
        self,
        settings: GuardSettings | None = None,
        warmup_steps: int = 0,
        *,
        loss_scaling: bool = False,
        stage: str = "sft",
        kl_target: float | None = None,
    ) -> None:
        """`stage` is method.stage, `kl_target` alignment.ppo_target; None where there is no KL control."""
        self._settings = settings or settings_of(stage)
        # What ppo makes small is another thing in each round: it does not fall as the policy gets better.
        self._by_loss = stage != "ppo"
        self._far = _Distance(self._settings, kl_target)
        self._warmup_steps = warmup_steps
        self._loss_scaling = loss_scaling
        self._overflows = 0
        self._curve = _Curve(self._settings)
        self._risen_logs = 0
        self._in_spike = False
        self._rise_told = False

    def observe(
        self, step: int, loss: float | None, grad_norm: float | None, kl: float | None = None
    ) -> Verdict | None:
        """Add one log; returns a verdict if there is something to say.

        None for a number that this log does not carry; `kl` is stage ppo's, nats an answer. Logs go in the order of
        their steps; after a resume from a checkpoint the repeated steps may be given again.
        """
        verdict = self._check_finite(step, loss, grad_norm)
        if not self._by_loss:
            return verdict or self._far.observe(step, kl)
        verdict = verdict or self._check_zero(step, loss)
        if verdict is not None or loss is None or not math.isfinite(loss):
            return verdict
        spike = self._check_spike(step, loss)
        self._curve.push(step, loss)
        return self._check_explosion(step) or self._check_rise(step) or spike

    def _check_finite(
        self, step: int, loss: float | None, grad_norm: float | None
    ) -> Verdict | None:
        if loss is not None and not math.isfinite(loss):
            return Verdict("stop", f"loss is {_name(loss)} at step {step}{self._last()}", step)
        if grad_norm is None:
            return None
        if math.isfinite(grad_norm):
            self._overflows = 0
            return None
        if not self._loss_scaling:
            reason = f"the gradient norm is {_name(grad_norm)} at step {step}{self._last()}"
            return Verdict("stop", reason, step)
        self._overflows += 1
        if self._overflows < self._settings.overflow_logs:
            return None
        reason = (
            f"the gradients overflowed in {self._overflows} logs in a row, up to step {step}: "
            "loss scaling (fp16) cannot find a scale that works"
        )
        return Verdict("stop", reason, step)

    def _check_zero(self, step: int, loss: float | None) -> Verdict | None:
        if loss is None or not self._settings.from_best:
            return None
        smoothed = self._curve.smoothed
        if loss != 0 or (smoothed is not None and smoothed < self._settings.learned_loss):
            return None
        reason = (
            f"{_ZERO} at step {step}{self._last()}: either every label is masked, so that there is nothing "
            "to learn from, or a filter hides losses that are not numbers"
        )
        return Verdict("stop", reason, step)

    def _check_spike(self, step: int, loss: float) -> Verdict | None:
        settings, curve = self._settings, self._curve
        before = curve.smoothed
        if before is None or curve.noise is None:
            return None
        if not settings.from_best:
            before = max(before, curve.start.loss)
        margin = max(settings.min_rise, settings.spike_sigmas * curve.noise)
        spiking = loss - before > max(margin, (settings.spike_ratio - 1) * abs(before))
        new = spiking and not self._in_spike
        self._in_spike = spiking
        if not new:
            return None
        reason = (
            f"loss jumped to {_number(loss)} at step {step}, {_times(loss, before)} its average "
            f"({_number(before)})"
        )
        return Verdict("warn", reason, step)

    def _check_explosion(self, step: int) -> Verdict | None:
        settings, curve = self._settings, self._curve
        gained = max(0.0, curve.start.loss - curve.best.loss) if settings.from_best else 0.0
        mark = curve.risen_above(settings.explosion_ratio, settings.lost_share * gained)
        return None if mark is None else Verdict("stop", self._rose(mark), step)

    def _check_rise(self, step: int) -> Verdict | None:
        settings, curve = self._settings, self._curve
        if step <= self._warmup_steps:
            return None
        mark = curve.risen_above(settings.rise_ratio)
        if mark is None:
            self._risen_logs, self._rise_told = 0, False
            return None
        if curve.now <= curve.start.loss:
            # Worse than it was, yet better than untrained: the user's call.
            self._risen_logs = 0
            told, self._rise_told = self._rise_told, True
            return None if told else Verdict("warn", self._rose(mark), step)
        self._risen_logs += 1
        if self._risen_logs < settings.rise_logs:
            return None
        stayed = f"has stayed above its start ({_number(curve.start.loss)})"
        reason = f"{self._rose(mark)}, and {stayed} for {self._risen_logs} logs"
        return Verdict("stop", reason, step)

    def _rose(self, mark: _Mark) -> str:
        now = self._curve.now
        kind = "best" if self._settings.from_best else "start"
        return (
            f"loss rose to {_number(now)}, {_times(now, mark.loss)} its {kind} "
            f"({_number(mark.loss)} at step {mark.step})"
        )

    def _last(self) -> str:
        smoothed = self._curve.smoothed
        return "" if smoothed is None else f" (it was {_number(smoothed)} before)"


class _Distance:
    """How far stage ppo's answers are from its reference, round by round."""

    def __init__(self, settings: GuardSettings, target: float | None) -> None:
        self._settings = settings
        self._target = target
        self._last: float | None = None
        self._rounds = 0

    def observe(self, step: int, kl: float | None) -> Verdict | None:
        """Add a log, whose `kl` is that of the last round."""
        # The updates of one round all log the same.
        if kl is None or kl == self._last:
            return None
        self._last = kl
        if not math.isfinite(kl):
            return Verdict("stop", f"the KL divergence is {_name(kl)} at step {step}", step)
        if self._target is None or kl <= self._settings.kl_ratio * self._target:
            self._rounds = 0
            return None
        self._rounds += 1
        if self._rounds < self._settings.kl_logs:
            return None
        reason = (
            f"the answers are {_number(kl)} nats from the reference at step {step}, {_times(kl, self._target)} what "
            f"ppo_target wants ({_number(self._target)}), for {self._rounds} rounds"
        )
        return Verdict("stop", reason, step)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A smoothed loss to compare with; `variance` relative to that of a single loss."""

    loss: float
    step: int
    variance: float


_UNKNOWN = _Mark(math.inf, 0, 1.0)


class _Curve:
    """The smoothed loss so far: where it began, its best, and how much single losses jitter."""

    # Jitter is averaged over many more logs than the loss: it changes slowly, and judged by a few
    # logs it would often come out too small.
    _JITTER_ALPHA = 0.03
    # A lone spike must not blind the guard for long: beyond this many times the usual, and beyond
    # one nat, it adds no more jitter.
    _JITTER_CLIP = 4.0
    _JITTER_CLIP_NATS = 1.0
    # Logs after which the extra caution for a jitter known from few values has halved.
    _CAUTION = 5

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._logs = 0
        self._last_three: deque[float] = deque(maxlen=3)
        self._ema = Ema(settings.alpha)
        self._jitter = Ema(self._JITTER_ALPHA)
        self._level = math.inf
        self.now = math.inf
        self.start = _UNKNOWN
        self.best = _UNKNOWN

    @property
    def smoothed(self) -> float | None:
        return self._ema.value

    @property
    def started(self) -> bool:
        return self._logs >= self._settings.start_logs

    @property
    def noise(self) -> float | None:
        """Standard deviation of single losses around their trend, None with fewer than 3 logs."""
        jitter = self._jitter.value
        if jitter is None:
            return None
        # A few values may be close together by luck.
        caution = 1 + self._CAUTION / (self._CAUTION + self._logs)
        return caution * jitter / JITTER_PER_SIGMA

    def push(self, step: int, loss: float) -> None:
        self._last_three.append(loss)
        self._level = _middle(self._last_three)
        self.now = self._ema.push(self._level)
        if len(self._last_three) == 3:
            self._add_jitter()
        self._logs += 1
        mark = _Mark(self.now, step, self._ema.variance_factor)
        # The start is kept apart from the best: its averages are of so few losses that a lucky
        # one would stay the best for ever. It is the lowest of them, since a rate that is far too
        # high ruins a model within these few logs already.
        if self._logs <= self._settings.start_logs and mark.loss < self.start.loss:
            self.start = mark
        if self.started and mark.loss < self.best.loss:
            self.best = mark

    def _add_jitter(self) -> None:
        # A trend, a step up or an explosion puts the middle loss between its neighbours, and adds
        # nothing: only what goes up and comes back, or the other way round, is jitter.
        move = abs(self._last_three[1] - self._level)
        usual = self._jitter.value or 0.0
        self._jitter.push(min(move, max(self._JITTER_CLIP * usual, self._JITTER_CLIP_NATS)))

    def risen_above(self, ratio: float, least: float = 0.0) -> _Mark | None:
        """The best or the start, if the loss is now above `ratio` × it.

        The rise must be at least `least` nats and more than noise explains.
        """
        if not self.started:
            return None
        settings = self._settings
        for mark in (self.best, self.start) if settings.from_best else (self.start,):
            spread = (self.noise or 0.0) * math.sqrt(mark.variance + self._ema.variance_factor)
            needed = max(settings.min_rise, least, settings.noise_sigmas * spread)
            # The average still stands high when the loss itself is back already: both must be up.
            high = min(self.now, self._level) - mark.loss > (ratio - 1) * abs(mark.loss)
            if high and self.now - mark.loss >= needed:
                return mark
        return None


def _middle(values: Iterable[float]) -> float:
    """The median, of an even number the lower one. (`statistics` would cost a client 8 ms.)"""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def _number(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= abs(value) < 1e5 else f"{value:.2g}"


def _times(value: float, base: float) -> str:
    if base <= 0:
        return "far above"
    return f"{value / base:.1f} times" if value < 1000 * base else "more than 1000 times"


def _name(value: float) -> str:
    return "not a number (NaN)" if math.isnan(value) else "infinite"
