"""What has just happened to a study, in a line for somebody who watches. Pure."""

from core.study.state import Trial
from tui import words
from tui.rung_text import decision_lines, decision_text
from tui.snapshot import StudyView

CREEP = "its memory grows"
"""The beginning of what `core.memory.creep` says; importing it would load more than the first frame can wait for."""
_BAD = ("diverged", "oom", "failed", "lost", "skipped")


def news(before: StudyView, after: StudyView) -> str:
    """The most telling of what changed since `before`; empty where nothing did that needs words.

    Endings that went well show in the table; what went wrong, and what was done about it, is said.
    """
    if before.reading.status == "running" and after.reading.status == "finished":
        return _finished(after)
    if len(after.reading.decisions) > len(before.reading.decisions):
        text = decision_text(after.reading.decisions[-1])
        return text[:1].upper() + text[1:]
    if said := _confirming(before, after):
        return said
    warned = _memory_warning(before, after)
    if before.reading.trials is after.reading.trials:
        return warned
    pairs = zip(before.reading.trials, after.reading.trials, strict=False)
    told = [said for old, new in pairs if old is not new and (said := _trial_news(old, new))]
    return told[-1] if told else warned


def notice_lines(view: StudyView, now: float) -> list[str]:
    """Everything that the engine had to say and what was decided at rungs, newest first, with its age."""
    reading = view.reading
    said = [
        (n.t, f", trial {n.trial}" if n.trial is not None else "", n.text) for n in reading.notices
    ]
    said += [(d.t, "", text) for d in reading.decisions for text in decision_lines(d)]
    said.sort(key=lambda each: -each[0])
    lines = [f"{words.age(now - t)}{about}: {text}" for t, about, text in said]
    if reading.reason:
        lines.insert(0, f"The study is {reading.status}: {reading.reason}")
    return [*lines, f"How it is searched: {reading.choice}"] if reading.choice else lines


def _finished(view: StudyView) -> str:
    if any(t.kind == "range" for t in view.reading.trials):
        return "The range test is over: Enter shows its curve."
    if view.best is None:
        return "The study is finished without a winner: w says why."
    return "The search is finished: 5 shows the ranking."


def _confirming(before: StudyView, after: StudyView) -> str:
    """That good trials run once more, where that has just been decided."""
    added = after.reading.trials[len(before.reading.trials) :]
    parents = [f"{t.parent}" for t in added if t.source == "confirm" and t.parent is not None]
    if not parents:
        return ""
    which = " and ".join((", ".join(parents[:-1]), parents[-1])) if parents[1:] else parents[0]
    many = "s" if parents[1:] else ""
    return f"Before a winner is named: trial{many} {which} once more, with another seed."


def _memory_warning(before: StudyView, after: StudyView) -> str:
    """The engine's warning that a trial's memory grows towards its limit, where it is new."""
    known = before.reading.notices
    for notice in reversed(after.reading.notices):
        if known and notice.t <= known[-1].t:
            break
        if notice.trial is not None and notice.text.startswith(CREEP):
            return f"Trial {notice.trial}: {notice.text}"
    return ""


def _trial_news(old: Trial, new: Trial) -> str:
    if len(new.fixes) > len(old.fixes):
        what = "would not fit and starts changed"
        if any(attempt.ending == "oom" for attempt in new.attempts):
            what = "ran out of memory and tries again"
        return f"Trial {new.number} {what}: {new.fixes[-1]}"
    if new.stalled and not old.stalled:
        return f"Trial {new.number} stalls: {new.stalled}"
    if new.status in _BAD and not old.ended:
        what = words.LOOKS[new.status].word if new.status != "oom" else "ran out of memory"
        return f"Trial {new.number} {what}" + (f": {new.reason}" if new.reason else "")
    return ""
