"""The doctor's questions put to a study: its trials as facts, a trial's run as facts. Reads nothing."""

from collections.abc import Iterable, Mapping

from core.doctor import Examination, RunFacts, TrialFacts, examine
from core.engine.standing import rank_trials
from core.search.edges import numeric
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
    own = [t for t in probes if t.number in places]
    facts = []
    for trial in own:
        ranked = places[trial.number]
        facts.append(
            TrialFacts(
                trial=trial.number,
                settings={**(profile or {}), **trial.changes},
                status=trial.status,
                value=ranked.value,
                share=ranked.share if ranked.share is not None else 1.0,
                place=ranked.place,
                best=ranked.group == 1,
                runs=ranked.runs,
                rungs=tuple((r.at, r.value) for r in trial.rungs if r.value is not None),
            )
        )
    return examine(facts, space, find(rank_by, direction))


def run_facts(trial: Trial, settings: Mapping[str, Scalar], run: RunInfo | None = None) -> RunFacts:
    """What the doctor is told of a trial's run besides its points.

    `settings` are its parameters by name ([train] and [method] of the profile with the trial's changes); what they lack
    is not known.
    """
    rows, accumulation = (
        numeric(settings.get(name))
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    return RunFacts(
        total_steps=run.total_steps if run is not None else trial.total_steps,
        learning_rate=numeric(settings.get("learning_rate")),
        finetuning_type=str(settings.get("finetuning_type", "lora")),
        effective_batch=int(rows * accumulation) if rows and accumulation else None,
        weight_decay=numeric(settings.get("weight_decay")),
        max_grad_norm=numeric(settings.get("max_grad_norm")),
        steps_per_epoch=run.steps_per_epoch if run is not None else 0.0,
        train_rows=run.train_rows if run is not None else 0,
        dropped_rows=run.dropped_rows if run is not None else 0,
        ended=trial.ended or trial.status in ("rung", "paused"),
        diverged=trial.reason if trial.status == "diverged" else "",
    )
