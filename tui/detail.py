"""What is said about one trial: settings, advice, its line in the heading. Pure text, no widgets."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from core.study.files import TrialForecast
from core.study.state import Attempt, Suggestion, Trial
from core.values import Scalar
from tui import rung_text, words
from tui.fix_view import fix_lines, from_option
from tui.snapshot import StudyView, TrialRow
from tui.theme import COLOURS

_ADVISING: Mapping[str, str] = {
    "start": "A dry run finds out whether it fits into the memory, before it starts.",
    "fit": "Dry runs find the largest batch that fits, with the same rows per update.",
    "fix": "Looking for a fix that fits: dry runs of changes, some seconds.",
}
"""What is said while a trial's memory is looked into."""
_NAME = 20
"""Cells in which most names end, so that values stand under each other."""
_ENDINGS: Mapping[str, str] = {
    "queued": "It waits for its turn.",
    "starting": "Its worker is starting: loading libraries, the model and the data takes a while.",
    "running": "It trains.",
    "pausing": "It saves a checkpoint; then its GPU is free.",
    "paused": "It is paused with a checkpoint and holds no GPU. r goes on exactly from there.",
    "stopping": "It is being stopped.",
    "rung": "It waits at a rung with a checkpoint and holds no GPU: the best there go on exactly from it.",
    "pruned": "It was dropped at a rung: others did better with as much training.",
    "stopped": "It was stopped before its end, so it has no place in the ranking.",
    "completed": "It ran to its end.",
    "diverged": "Its loss exploded or stopped being a number: these settings do not train.",
    "oom": "It ran out of memory.",
    "failed": "It failed. The last lines of its log say more (Tab, log).",
    "lost": "It ended without a trace: the machine restarted, or its processes were killed.",
    "skipped": "It was not started: its settings are proven not to fit into the memory.",
}


def heading(row: TrialRow) -> str:
    """A trial in a line: its number and in what it differs."""
    kind = {"full": "full training", "range": "range test"}.get(row.trial.kind, "trial")
    return f"{kind} {row.number}  {words.settings_line(row.trial.changes)}".rstrip()


def settings_lines(view: StudyView, row: TrialRow) -> list[Text]:
    """What the trial trains with, where that comes from, and how its attempts went."""
    trial, profile = row.trial, view.reading.profile
    lines = [_title("differs from the profile")]
    lines += [_difference(key, value, profile) for key, value in trial.settings.items()]
    if not trial.settings:
        lines.append(_muted("nothing: it runs the profile as it is"))
    if trial.overrides:
        lines += [Text(""), _title("changed since, to fit into memory")]
        lines += [
            _difference(key, value, {**profile, **trial.settings})
            for key, value in trial.overrides.items()
        ]
    lines += [Text(""), *_run_lines(row, profile)]
    if row.curve is not None and (logged := row.curve.own_measures):
        lines += [Text(""), _title("measured last")]
        lines += [_pair(words.metric(name), f"{value:.4g}") for name, value in logged]
    if stood := _rung_lines(view, trial):
        lines += [Text(""), _title(f"rungs, {words.metric(view.reading.rank_by)}"), *stood]
    if trial.attempts:
        lines += [Text(""), _title("attempts")]
        lines += [_attempt_line(attempt) for attempt in trial.attempts]
    lines += [_muted(f"fix applied: {fix}") for fix in trial.fixes if fix]
    return lines


def _rung_lines(view: StudyView, trial: Trial) -> list[Text]:
    """How far the trial came in the probe, with what, and where it goes or was dropped."""
    known = rung_text.rung_lines(trial)
    if where := rung_text.where(trial, brief=True):
        known.append(("now", where))
    again = rung_text.confirmations(view.reading.trials, trial.number)
    known += [(f"trial {t.number}", f"{_came_to(t)} with another seed") for t in again]
    return [_pair(name, value) for name, value in known]


def _came_to(trial: Trial) -> str:
    value = trial.value if trial.value is not None else trial.eval_loss
    if trial.status != "completed" or value is None:
        return words.LOOKS[trial.status].word
    return words.loss(value)


def _run_lines(row: TrialRow, profile: Mapping[str, Any]) -> list[Text]:
    trial, curve = row.trial, row.curve
    known: list[tuple[str, str]] = []
    values = {**profile, **trial.changes}
    batch = effective_batch(values)
    if batch is not None:
        known.append(("effective batch", batch))
    if row.total_steps:
        known.append(("steps", f"{row.step} of {row.total_steps}"))
    run = curve.run if curve else None
    if run is not None:
        known.append(("full training", f"{run.full_steps} steps"))
        known.append(("rows", f"{run.train_rows:,}, {run.eval_rows:,} to evaluate"))
        share = words.share(run.trainable_parameters, run.parameters)
        counts = (words.count(run.trainable_parameters), words.count(run.parameters))
        known.append(("trained parameters", f"{counts[0]} of {counts[1]} ({share})"))
        known += [("precision", run.precision), ("device", run.device)]
    if curve is not None and curve.tokens_per_s:
        known.append(("speed", f"{curve.tokens_per_s:,.0f} tokens/s"))
    if row.peak_memory is not None:
        known.append(("peak memory", words.size(row.peak_memory)))
    if told := foreseen(row):
        known.append(("memory", told))
    if trial.fitted:
        known.append(("batch chosen", trial.fitted))
    if trial.seconds:
        known.append(("trained for", words.duration(trial.seconds)))
    if source := rung_text.source_text(trial):
        known.append(("source", source))
    lines = [_title("run")] if known else []
    return lines + [_pair(name, value) for name, value in known]


def effective_batch(values: Mapping[str, Any]) -> str | None:
    """Rows per update as a product, `8 × 2 = 16`; None where the profile does not tell."""
    batch = values.get("per_device_train_batch_size")
    steps = values.get("gradient_accumulation_steps", 1)
    gpus = values.get("gpus_per_trial", 1)
    if not all(isinstance(v, int) for v in (batch, steps, gpus)):
        return None
    factors = [str(batch)]
    factors += [str(steps)] if steps != 1 else []
    factors += [words.plural(gpus, "GPU")] if gpus != 1 else []
    return f"{batch * steps * gpus}" + (f" ({' x '.join(factors)})" if len(factors) > 1 else "")


def _attempt_line(attempt: Attempt) -> Text:
    several = words.plural(len(attempt.gpus), "GPU") if len(attempt.gpus) > 1 else "GPU"
    where = several if attempt.device == "cuda" else "CPU"
    took = ""
    if attempt.started is not None and attempt.ended is not None:
        took = f" after {words.duration(attempt.ended - attempt.started)}"
    changed = f"  with {words.settings_line(attempt.overrides)}" if attempt.overrides else ""
    ending = words.LOOKS[attempt.ending].word if attempt.ending else "under way"
    line = Text(f"{attempt.number}  {where}  ", style=COLOURS["secondary"])
    line.append(ending, style=COLOURS[words.LOOKS[attempt.ending or "running"].colour])
    line.append(f"{took}{changed}", style=COLOURS["text"])
    return line


def advice_lines(view: StudyView, row: TrialRow) -> list[Text]:
    """What became of the trial, why, and what can be done about it."""
    trial = row.trial
    look = words.LOOKS[trial.status]
    lines = [Text(_ENDINGS[trial.status], style=f"bold {COLOURS[look.colour]}")]
    if trial.reason:
        lines.append(Text(_sentence(trial.reason)))
    if trial.stalled and trial.live:
        lines.append(Text(_sentence(trial.stalled), style=COLOURS["warning"]))
    if (where := rung_text.where(trial)) and trial.status in ("rung", "pruned"):
        lines.append(Text(_sentence(where)))
    if trial.asked_reason and trial.live:
        lines.append(Text(_sentence(trial.asked_reason)))
    place = next((r for r in view.ranked if r.trial == trial.number), None)
    if place is not None and place.place is not None:
        tie = ", with no real difference to its neighbours" if place.tied else ""
        lines.append(Text(f"Place {place.place} of {_placed(view)}{tie}."))
    lines += doctor_lines(row)
    lines += _memory_lines(row)
    if trial.suggestion is not None:
        lines += _fix_lines(trial.suggestion, {**view.reading.profile, **trial.changes})
    elif trial.usage_error:
        lines.append(Text("The settings or the input are wrong: trying again changes nothing."))
    elif trial.status in ("failed", "lost", "oom") and trial.advising is None:
        lines.append(_key("f", "tries again"))
    elif trial.status == "skipped" and trial.advising is None:
        lines.append(_key("f", "starts it all the same"))
    if trial.status == "completed" and trial.kind == "probe":
        lines.append(_key("P", "trains fully with these settings"))
    notices = [n.text for n in view.reading.notices if n.trial == trial.number]
    if notices:
        lines += [Text(""), _title("the engine says")]
        lines += [Text(_sentence(text)) for text in notices[-5:]]
    return lines


def doctor_lines(row: TrialRow) -> list[Text]:
    """What the doctor says of the trial's curve, and what to do; nothing of a healthy one."""
    finding = row.curve.finding if row.curve else None
    if finding is None:
        return []
    colour = COLOURS["error" if finding.severity == "error" else "text"]
    said = [Text(_sentence(finding.text), style=colour)] if finding.text != row.trial.reason else []
    if finding.advice:
        said.append(Text(_sentence(finding.advice)))
    return [Text(""), _title("the doctor says"), *said, Text("")] if said else []


def _memory_lines(row: TrialRow) -> list[Text]:
    """What is known about the trial's memory: what is being found out, what was, and whether the forecast held."""
    trial = row.trial
    lines = []
    if trial.advising is not None:
        lines.append(Text(_ADVISING[trial.advising], style=COLOURS["accent"]))
    elif trial.advice and trial.status in ("oom", "skipped"):
        lines.append(Text(_sentence(trial.advice)))
    if told := foreseen(row):
        lines.append(Text(f"Memory: {told}."))
    return lines


def foreseen(row: TrialRow) -> str:
    """The trial's memory against its forecast, in words; "" where it has none."""
    trial, record = row.trial, row.curve.forecast if row.curve else None
    # What ran out of memory was never measured to its peak.
    whole = trial.status != "oom"
    if row.curve is not None and record is not None and (trial.live or trial.forecast is None):
        measured = row.curve.peak_memory if whole else None
        return words.forecast(expected(record), measured, proven=record.tier == "proof")
    if trial.forecast is not None:
        measured = trial.measured if whole else None
        return words.forecast(trial.forecast, measured, proven=trial.proven)
    return ""


def expected(record: TrialForecast) -> int:
    """What a trial should measure at its peak: tensors on a GPU, with the process itself on the CPU. Bytes."""
    return record.allocated + (record.context if record.device == words.CPU else 0)


def _fix_lines(suggestion: Suggestion, profile: Mapping[str, Any]) -> list[Text]:
    if not suggestion.fixes:
        lines = [Text(""), _title("suggested fix"), Text(_sentence(suggestion.text))]
        lines += [_difference(k, v, profile) for k, v in suggestion.changes.items()]
        return [*lines, _key("f", "tries again with it")]
    several = len(suggestion.fixes) > 1
    lines = [Text(""), _title("fixes that fit" if several else "a fix that fits")]
    for place, option in enumerate(suggestion.fixes, 1):
        number = Text(f"{place} ", style=f"bold {COLOURS['primary']}")
        first, *rest = fix_lines(from_option(option))
        lines.append(number.append_text(first))
        lines += [Text("  ").append_text(line) for line in rest]
    return [*lines, _key("f", "tries again with one of them" if several else "tries again with it")]


def fix_headline(trial: Trial) -> str:
    """What is said above the fixes of a trial: how it ended, and what holds its memory."""
    said = (trial.reason, trial.advice)
    return "\n".join(_sentence(text) for text in said if text)


def _placed(view: StudyView) -> int:
    return sum(1 for r in view.ranked if r.place is not None)


def _difference(key: str, value: Scalar, profile: Mapping[str, Any]) -> Text:
    line = _pair(key, words.setting(value))
    if key in profile and profile[key] != value:
        line.append(f"   was {words.setting(profile[key])}", style=COLOURS["muted"])
    return line


def log_text(lines: Sequence[str]) -> list[Text]:
    """A log's lines; those that name an error stand out."""
    return [Text(line, style=COLOURS["error"] if _bad(line) else "") for line in lines]


def _bad(line: str) -> bool:
    return "Error" in line or line.startswith("Traceback")


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ")")) else ".")


def _title(text: str) -> Text:
    return Text(text, style=COLOURS["muted"])


def _muted(text: str) -> Text:
    return Text(f"  {text}", style=COLOURS["muted"])


def _pair(name: str, value: str) -> Text:
    line = Text(f"  {name:<{_NAME}}  ", style=COLOURS["secondary"])
    return line.append(value, style=f"bold {COLOURS['text']}")


def _key(key: str, words_: str) -> Text:
    line = Text("  ")
    line.append(key, style=f"bold {COLOURS['primary']}")
    return line.append(f"  {words_}", style=COLOURS["text"])
