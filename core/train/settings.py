"""A profile's settings as the Trainer's arguments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.params import TrainTable
from core.profile import Profile
from core.study.files import TrialTask
from core.train.distributed.ranks import ALONE, Ranks
from core.train.errors import SettingsError
from core.train.judging import judged_by
from core.train.plan import Plan
from core.train.precision import Numbers
from core.train.schedule_settings import check_rates, phases

ENDLESS = frozenset({"reduce_lr_on_plateau", "greedy"})
"""Schedules that do not depend on the length of the run, but on how it goes: they go on from a probe as they are."""

_STEP_COUNTS = ("num_decay_steps", "num_stable_steps")


def training_arguments(
    profile: Profile,
    task: TrialTask,
    plan: Plan,
    numbers: Numbers,
    folder: Path,
    ranks: Ranks = ALONE,
) -> Any:
    """transformers.TrainingArguments; checkpoints go to `folder`. Which of them stay is the conductor's to say.

    Raises:
        SettingsError: the installed transformers lacks what the profile asks for.
    """
    from transformers import TrainingArguments

    train = profile.train
    _check_scheduler(train)
    evaluates = plan.evaluate_every is not None
    keep_best = task.save_model and train.early_stopping_patience is not None and evaluates
    chooses = keep_best or (evaluates and saves_evaluated(train, task))
    saving = "best" if chooses else ("steps" if saves_as_it_goes(train, task) else "no")
    metric = judged_by(profile)
    greater = metric.direction == "max"
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=train.per_device_train_batch_size,
        per_device_eval_batch_size=train.per_device_eval_batch_size
        or train.per_device_train_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        max_steps=plan.total_steps,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        lr_scheduler_kwargs=scheduler_settings(train, plan, greater=greater),
        warmup_steps=plan.warmup_steps,
        optim=train.optim,
        weight_decay=train.weight_decay,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=train.adam_epsilon,
        max_grad_norm=train.max_grad_norm,
        neftune_noise_alpha=train.neftune_noise_alpha,
        bf16=numbers.name == "bf16",
        fp16=numbers.name == "fp16",
        logging_strategy="steps",
        logging_steps=1 if task.kind == "range" else train.logging_steps,
        logging_nan_inf_filter=False,
        # Which updates are followed by an evaluation is the conductor's to say.
        eval_strategy="steps" if evaluates else "no",
        eval_steps=plan.total_steps if evaluates else None,
        metric_for_best_model=metric.name if evaluates else None,
        greater_is_better=greater,
        save_strategy=saving,
        save_steps=train.save_steps or plan.total_steps,
        load_best_model_at_end=keep_best and ranks.first,
        seed=train.seed,
        data_seed=train.data_seed,
        use_cpu=task.device == "cpu",
        dataloader_pin_memory=task.device == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


def saves_as_it_goes(train: TrainTable, task: TrialTask) -> bool:
    """Whether checkpoints are saved every train.save_steps updates. A range test leaves nothing behind."""
    return train.save_steps is not None and task.kind != "range"


def saves_evaluated(train: TrainTable, task: TrialTask) -> bool:
    """Whether each evaluation saves a checkpoint, of which the best stay: of a full training whose profile asks."""
    return train.save_best is not None and task.kind == "full"


def scheduler_settings(train: TrainTable, plan: Plan, *, greater: bool = False) -> dict[str, Any]:
    """train.lr_scheduler_kwargs, completed where transformers has no default, counts of updates scaled to the run.

    `greater`: of the metric that evaluations are judged by larger values are better.

    Raises:
        SettingsError: a count of updates is larger than the full training, or a setting would turn the schedule around.
    """
    given: dict[str, Any] = {
        key: _scaled(key, value, plan) if key in _STEP_COUNTS and isinstance(value, int) else value
        for key, value in train.lr_scheduler_kwargs.items()
    }
    name = train.lr_scheduler_type
    check_rates(train, given, greater=greater)
    if name == "warmup_stable_decay":
        given = phases(train, given, plan)
    if name == "inverse_sqrt" and ("timescale" in given or plan.warmup_steps == 0):
        # A number of updates as well; without one it is the warm-up's, or what transformers takes without a warm-up.
        given["timescale"] = given.get("timescale", 10_000) * float(plan.schedule_share)
    return with_schedule_defaults(given, name, train.learning_rate, greater=greater)


def with_schedule_defaults(
    given: Mapping[str, Any], name: str, learning_rate: float, *, greater: bool
) -> dict[str, Any]:
    """The settings of the schedule `name` with those that other settings decide; `greater` as for
    `scheduler_settings`."""
    whole = dict(given)
    if greater and name in ENDLESS:
        whole.setdefault("mode", "max")
    if name == "greedy":
        # GreedyLR's own bounds, 1e-3 to 1, lie above every rate that fine-tuning bears.
        whole.setdefault("min_lr", learning_rate / 10)
        whole.setdefault("max_lr", learning_rate * 10)
    if (
        name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
        and not {"min_lr", "min_lr_rate"} & whole.keys()
    ):
        whole["min_lr_rate"] = 0.1
    return whole


def _scaled(key: str, count: int, plan: Plan) -> int:
    """A count of updates of the full training as one of the schedule, which the warm-up leaves room for."""
    if count > plan.reference_steps:
        # transformers goes on with a rate that is next to nothing.
        raise SettingsError(
            f"train.lr_scheduler_kwargs: {key} = {count} does not fit into the {plan.reference_steps} updates of the "
            "full training"
        )
    scaled = round(count * plan.schedule_share)
    return max(1, min(scaled, plan.schedule_steps - plan.warmup_steps))


def _check_scheduler(train: TrainTable) -> None:
    import transformers
    from transformers import SchedulerType

    known = [kind.value for kind in SchedulerType]
    if train.lr_scheduler_type not in known:
        raise SettingsError(
            f'train.lr_scheduler_type = "{train.lr_scheduler_type}" needs a newer transformers than '
            f"{transformers.__version__}, which knows {', '.join(known)}"
        )
