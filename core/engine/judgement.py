"""The doctor's questions put to a study: its trials as facts, a trial's run as facts. Reads nothing."""

from collections.abc import Iterable, Mapping

from core.diagnosis.study import RATE
from core.doctor import Examination, RunFacts, TrialFacts, examine
from core.engine.standing import rank_trials
from core.params import AlignmentTable
from core.search.edges import numeric
from core.search.guard import blames_data
from core.search.metric import Direction, find
from core.search.ranking import by_trial
from core.study.files import RunInfo
from core.study.state import Trial
from core.values import Scalar


def examination(
    trials: Iterable[Trial],
    space: Mapping[str, object],
    rank_by: str,
    direction: Direction = "min",
    profile: Mapping[str, Scalar] | None = None,
) -> Examination:
    """What the probes of a study say together.

    `space` is the profile's [search.space] as its file has it, `profile` other settings by parameter name (its learning
    rate, where that is not searched).
    """
    probes = [t for t in trials if t.kind == "probe"]
    places = by_trial(rank_trials(probes, rank_by, direction))
    again: dict[int | None, list[Trial]] = {}
    for trial in probes:
        if trial.source == "confirm":
            again.setdefault(trial.parent, []).append(trial)
    facts = []
    for trial in probes:
        if trial.number not in places:
            continue
        ranked, seconds = places[trial.number], again.get(trial.number, [])
        status = _status(trial, seconds)
        settings = ran_with(trial, space, profile or {})
        facts.append(
            TrialFacts(
                trial=trial.number,
                # The space knows the rate as it was drawn, before it was scaled with the batch.
                settings={**settings, **{n: v for n, v in trial.sampled.items() if n == RATE}},
                rate=numeric(settings.get(RATE)),
                status=status,
                # Of one that completed and has no place (its confirmation diverged) the value does not count.
                value=ranked.value
                if ranked.place is not None or trial.status != "completed"
                else None,
                share=ranked.share if ranked.share is not None else 1.0,
                place=ranked.place,
                best=ranked.group == 1,
                runs=ranked.runs,
                rungs=tuple((r.at, r.value) for r in trial.rungs if r.value is not None),
                open=not trial.ended or any(not t.ended for t in seconds),
            )
        )
    return examine(facts, space, find(rank_by, direction))


def _status(trial: Trial, again: Iterable[Trial]) -> str:
    """How a trial stands; diverged, too, where it did with another seed. What its data broke says nothing of its
    settings."""
    if trial.status == "diverged" and blames_data(trial.reason):
        return "failed"
    lost = any(t.status == "diverged" and not blames_data(t.reason) for t in again)
    return "diverged" if lost else trial.status


def _warmup(settings: Mapping[str, Scalar], run: RunInfo | None) -> int | None:
    """Updates of the warm-up, as the worker told them."""
    if run is not None and run.warmup_steps is not None:
        return run.warmup_steps
    return _no_warmup(settings)


def _no_warmup(settings: Mapping[str, Scalar]) -> int | None:
    """0 where the settings say that there is no warm-up; else None, and it is read off the logged rates."""
    steps, ratio = numeric(settings.get("warmup_steps")), numeric(settings.get("warmup_ratio"))
    return 0 if steps == 0 or (steps is None and ratio == 0) else None


def _kl_target(settings: Mapping[str, Scalar]) -> float | None:
    """What alignment.ppo_target is, where it is not said: its default; None without KL control."""
    if settings.get("stage") != "ppo" or numeric(settings.get("ppo_kl_coef")) == 0:
        return None
    given = numeric(settings.get("ppo_target"))
    return AlignmentTable().ppo_target if given is None else given


def ran_with(
    trial: Trial, space: Mapping[str, object], profile: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """What a trial ran with: what it drew, what follows from it and what a fix changed, over the profile's values.

    A parameter of the space that it did not draw had no meaning for it (a rank without an adapter) and is left out.
    """
    own = {**trial.sampled, **trial.changes}
    idle = {name for name in space if name not in own} if trial.sampled else set[str]()
    return {**{name: value for name, value in profile.items() if name not in idle}, **own}


def run_facts(trial: Trial, settings: Mapping[str, Scalar], run: RunInfo | None = None) -> RunFacts:
    """What the doctor is told of a trial's run besides its points.

    `settings` are its parameters by name ([train] and [method] of the profile with the trial's changes); what they lack
    is not known.
    """
    rows, accumulation, gpus = (
        numeric(settings.get(name))
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "gpus_per_trial")
    )
    return RunFacts(
        total_steps=run.total_steps if run is not None else trial.total_steps,
        warmup_steps=_warmup(settings, run),
        learning_rate=numeric(settings.get("learning_rate")),
        stage=str(settings.get("stage", "sft")),
        finetuning_type=str(settings.get("finetuning_type", "lora")),
        effective_batch=int(rows * accumulation * (gpus or 1)) if rows and accumulation else None,
        weight_decay=numeric(settings.get("weight_decay")),
        max_grad_norm=numeric(settings.get("max_grad_norm")),
        pref_loss=str(settings.get("pref_loss", "sigmoid")),
        kl_target=_kl_target(settings),
        steps_per_epoch=run.steps_per_epoch if run is not None else 0.0,
        train_rows=run.train_rows if run is not None else 0,
        dropped_rows=run.dropped_rows if run is not None else 0,
        ended=trial.ended or trial.status in ("rung", "paused"),
        diverged=trial.reason if trial.status == "diverged" else "",
    )
