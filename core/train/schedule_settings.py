"""What train.lr_scheduler_kwargs may say, where transformers takes it and does what nobody means."""

from collections.abc import Mapping
from typing import Any

from core.params import TrainTable
from core.train.errors import SettingsError
from core.train.plan import Plan, warmup_updates

_SHARES = ("min_lr_rate", "min_lr_ratio", "warmup_lr_rate")
"""Settings that are a share of train.learning_rate."""
_WITHOUT = ("constant", "constant_with_warmup")
"""Schedules that take no settings: transformers passes over what is given."""


def check_rates(train: TrainTable, given: Mapping[str, Any], *, greater: bool) -> None:
    """Check the rates among the settings of a schedule; `greater`: of what evaluations are judged by larger values are
    better.

    Raises:
        SettingsError: a lowest rate is above the highest one, so that the rate would rise, or never move; or a schedule
            that follows the evaluations is to follow them the wrong way.
    """
    name, rate = train.lr_scheduler_type, train.learning_rate
    if name in _WITHOUT:
        return
    low, high = _number(given.get("min_lr")), _number(given.get("max_lr"))
    if low is not None and not 0 <= low <= rate:
        raise _wrong(
            f"min_lr = {low:g} is not between 0 and learning_rate = {rate:g}, which {name} goes down from"
        )
    if high is not None and high < rate:
        raise _wrong(
            f"max_lr = {high:g} is below learning_rate = {rate:g}, which {name} begins with"
        )
    for key in _SHARES:
        share = _number(given.get(key))
        if share is not None and not 0 <= share <= 1:
            raise _wrong(f"{key} = {share:g} is a share of learning_rate, from 0 to 1")
    mode, right = given.get("mode"), "max" if greater else "min"
    if mode in ("min", "max") and mode != right:
        raise _wrong(
            f'mode = "{mode}" would lower the rate where the run gets better: it is judged by what should be '
            f'{"large" if greater else "small"} (search.rank_by); leave mode out, or set it to "{right}"'
        )


def phases(train: TrainTable, given: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The settings of warmup_stable_decay, `given` as counts of this schedule's updates, without num_stable_steps.

    That is what the warm-up and the decay leave. transformers would take it as it is, and go on with the lowest rate,
    mostly 0, when it and the decay are over.

    Raises:
        SettingsError: both counts are given and do not make up the full training.
    """
    whole = dict(given)
    left = max(1, plan.schedule_steps - plan.warmup_steps)
    stable = whole.pop("num_stable_steps", None)
    if stable is None:
        whole.setdefault("num_decay_steps", min(max(1, plan.schedule_steps // 10), left))
        return whole
    for count in (stable, whole.get("num_decay_steps", 1)):
        if not isinstance(count, int):
            raise _wrong(f"a count of updates is a whole number, and {count!r} is none")
    if "num_decay_steps" not in whole:
        whole["num_decay_steps"] = max(1, left - stable)
        return whole
    own = (train.lr_scheduler_kwargs[name] for name in ("num_stable_steps", "num_decay_steps"))
    steady, falling = (int(count) for count in own)
    total = plan.reference_steps
    warm = warmup_updates(train, total, total)
    if warm + steady + falling != total:
        raise _wrong(
            f"num_stable_steps = {steady} and num_decay_steps = {falling} make {warm + steady + falling} updates with "
            f"the warm-up's {warm}, and the full training has {total}; leave num_stable_steps out: it is what is left"
        )
    return whole


def _number(value: Any) -> float | None:
    """A setting that is a number; what else it may be is for transformers to refuse."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"train.lr_scheduler_kwargs: {what}")
