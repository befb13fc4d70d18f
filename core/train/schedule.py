"""Learning-rate schedules that transformers has not: the rise of a range test, and the return from a probe's end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from core.params import TrainTable
from core.study.files import TrialTask
from core.train.plan import Plan
from core.train.settings import ENDLESS


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the learning rate of a run is decided. What is None here is left to transformers."""

    rise: tuple[float, float, int] | None = None
    """Of a range test: the first rate, the last one, and the updates from one to the other."""
    rate: float = 1.0
    """The optimizer's own rate, of which a schedule gives multiples."""
    back: tuple[int, int] | None = None
    """Where a full training goes on from a probe that had decayed its rate: the update that the probe ended with, and
    the updates over which the rate comes back."""
    continues: bool = False
    """Whether the run goes on from a checkpoint, whose settings may have been others."""

    def make(self, optimizer: Any) -> Any:
        """The schedule of a range test: it rises exponentially. None of other runs."""
        if self.rise is None:
            return None
        low, high, updates = self.rise
        growth, last = high / low, max(1, updates - 1)
        return LambdaLR(optimizer, lambda step: low * growth ** (step / last) / self.rate)

    def change(self, schedule: Any) -> None:
        """Let a schedule of transformers come up to its rate again, where that is asked for."""
        if self.back is not None and isinstance(schedule, LambdaLR):
            begins, updates = self.back
            schedule.lr_lambdas = [_coming_back(r, begins, updates) for r in schedule.lr_lambdas]

    def take_up(self, schedule: Any, optimizer: Any, own: Sequence[Mapping[str, Any]]) -> None:
        """Where a checkpoint has brought the settings that made it, give the optimizer its own again (`settings_of`),
        and the rate that its schedule says at the step that the checkpoint has brought it to."""
        if not self.continues:
            return
        for group, settings in zip(optimizer.param_groups, own, strict=True):
            group.update(settings)
        if not isinstance(schedule, LambdaLR):
            return
        schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        step = schedule.last_epoch
        rates = [b * r(step) for b, r in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        schedule._last_lr = rates
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def settings_of(optimizer: Any) -> list[dict[str, Any]]:
    """What each of an optimizer's groups of weights is set to, but for the rate of the moment."""
    momentary = ("params", "lr")
    return [
        {key: value for key, value in group.items() if key not in momentary}
        for group in optimizer.param_groups
    ]


def make_schedule(
    train: TrainTable, task: TrialTask, plan: Plan, probe_end: int | None
) -> Schedule:
    """The schedule of a trial; `probe_end` is the update that the probe ended with which it continues."""
    if task.kind == "range":
        return Schedule((task.range_low, task.range_high, task.range_steps), train.learning_rate)
    if probe_end is None or task.schedule == "full":
        return Schedule(continues=probe_end is not None or task.resume_from is not None)
    return Schedule(back=(probe_end, updates_back(train, plan, probe_end)), continues=True)


def updates_back(train: TrainTable, plan: Plan, probe_end: int) -> int:
    """Updates over which the rate comes back where a full training goes on from a probe that had decayed its rate.

    As many as Adam's average of the gradients remembers, 1 / (1 - beta1): those of the decayed rate have left it when
    the full rate is reached. A longer way back does not help: its length made no difference to the loss reached when
    models were trained further (Gupta et al., Continual Pre-Training of Large Language Models, arXiv 2308.04014).
    A tenth of what is left at most.
    """
    if train.lr_scheduler_type in ENDLESS:
        return 0
    remembered = round(1 / max(1e-6, 1 - train.adam_beta1))
    return max(0, min(remembered, (plan.total_steps - probe_end) // 10))


def describe(train: TrainTable, task: TrialTask, plan: Plan, probe_end: int | None) -> list[str]:
    """What a run is going to do, in lines for its log."""
    if task.kind == "range":
        return [
            f"learning-rate range test: from {task.range_low:g} to {task.range_high:g} in {plan.total_steps:,} steps"
        ]
    lines = [
        f"{plan.total_steps:,} of {plan.full_steps:,} steps, {plan.steps_per_epoch:,} an epoch"
    ]
    if plan.rung_step is not None:
        lines.append(f"waits after step {plan.rung_step:,}, its rung")
    if probe_end is not None and task.schedule == "full":
        lines.append(
            f"continues from the probe after step {probe_end:,}, as if that had never ended"
        )
    elif probe_end is not None:
        lines.append(
            f"continues from the probe after step {probe_end:,} with its weights, optimizer states and place in the "
            "data"
        )
        back = updates_back(train, plan, probe_end)
        if back:
            over = "1 step" if back == 1 else f"{back} steps"
            lines.append(f"the rate comes back to the full training's over {over}")
    return lines


def _coming_back(rate: Callable[[int], float], begins: int, updates: int) -> Callable[[int], float]:
    return lambda step: rate(step) * min(1.0, max(1, step - begins + 1) / (updates + 1))
