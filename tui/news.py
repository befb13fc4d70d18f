"""What has just happened to a study, in a line for somebody who watches. Pure."""

from core.study.state import Trial
from tui import words
from tui.snapshot import StudyView

CREEP = "its memory grows"
"""The beginning of what `core.memory.creep` says; importing it would load more than the first frame can wait for."""
_BAD = ("diverged", "oom", "failed", "lost", "skipped")


def news(before: StudyView, after: StudyView) -> str:
    """The most telling of what changed since `before`; empty where nothing did that needs words.

    Endings that went well show in the table; what went wrong, and what was done about it, is said.
    """
    if before.reading.status == "running" and after.reading.status == "finished":
        return "The search is finished: 5 shows the ranking."
    warned = _memory_warning(before, after)
    if before.reading.trials is after.reading.trials:
        return warned
    pairs = zip(before.reading.trials, after.reading.trials, strict=False)
    told = [said for old, new in pairs if old is not new and (said := _trial_news(old, new))]
    return told[-1] if told else warned


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
    if new.status in _BAD and not old.ended:
        what = words.LOOKS[new.status].word if new.status != "oom" else "ran out of memory"
        return f"Trial {new.number} {what}" + (f": {new.reason}" if new.reason else "")
    return ""
