"""Which trials go on past a rung: successive halving that also keeps what would still catch up.

The rule, at a rung that everybody on the way has come to:

1. Rungs lie at `first_rung` of the probe, or at the end of the warm-up where that is later, then twice as far each,
   the last at three quarters.
2. The best 1/`reduction` of those that came there go on, as in successive halving, at least `finalists`.
3. So does every other trial that would pass the best one's value of today if it kept a part of its present pace to the
   end of the probe: a quarter of it among 16 trials, and √(trials / 16) times that among more or fewer. The pace is how
   far its curve has moved since a third of the way to the rung, noise included: a noisy curve is judged later than a
   smooth one.
4. The others are dropped, and stay where they are. When nothing else is left to run, some go on after all: those that
   were dropped on account of a trial that failed later, and the best ones while fewer than `finalists` have finished or
   all that finished are worse than they are already.

Rule 3 is what successive halving lacks: curves cross early, since a low rate falls slowly and a high one late. It needs
to know a pace at the first rung, so that trials are also evaluated a third of the way there (`first_look`).

Everything is pure and without memory: each decision follows from the trials as they stand, so that it comes out the
same after a restart. It is not to be asked while a study is paused: a paused leader would count as failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    # The dashboard asks what a search still costs at its first frame, without the catalogue of parameters.
    from core.params import SearchTable
    from core.profile import Profile

EPSILON = 1e-9
"""Shares of a probe closer together than this are the same."""
GROWTH = 2.0
"""How many times further the next rung lies. Finer steps drop few more, and each costs a start; coarser ones let
hopeless trials run on (see `python -m bench search --variants`)."""
LAST_RUNG = 0.75
"""No rung lies later: what could still be saved is not worth another start."""
CROWDED = 0.8
"""A rung beyond this share of the way to the last one is left out."""
FIRST_LOOK = 1 / 3
"""Where on the way to the first rung trials are evaluated besides, so that their pace is known there."""
WINDOW = 0.3
"""The pace is measured from this share of the way to a rung: a third of it, less what whole updates may take off."""

WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
"""Schedules that begin at their full rate."""

PACE_TRIALS = 16
"""Among so many trials `HalvingSettings.pace` counts as it is. Among more it is likelier that one that begins slowly is
the best of all, and to be patient costs less beside the finalists."""

EntrantState = Literal["open", "rung", "done", "pruned", "out"]
"""`open`: on its way to `until`. `rung`: waits there. `done`: ran its whole probe. `pruned`: dropped at a rung, can be
revived. `out`: cannot go on by itself (diverged, out of memory, failed, stopped, lost, paused by a person)."""
Stopping = Literal["none", "halving", "asha"]


@dataclass(frozen=True, slots=True)
class Entrant:
    """A trial as the rungs see it.

    `until`: the share of the probe that it was sent to. `curve`: (share of the probe in (0, 1], value) in order; values
    are finite and lower is better. `losses` says the same of the evaluation loss where it tells equals apart (a share
    of rows, see `Metric.counted`), else it is empty. Then `learning_rate` breaks ties: the lower one is better.
    """

    trial: int
    until: float
    state: EntrantState
    curve: tuple[tuple[float, float], ...] = ()
    learning_rate: float | None = None
    losses: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class HalvingSettings:
    """The user's knobs, and for comparisons the constants of the rule.

    `first_rung`: a share of the probe. `reduction`: η. `finalists`: so many run to the end at least.
    `pace`: the share of its present pace that a trial is trusted to keep to the end, among 16 trials; loss curves
    flatten, and by how much cannot be known early. 0 leaves plain successive halving. `pace_growth`: the power of
    the number of trials that it grows with. `growth`: how many times further the next rung lies.
    `negated`: values were negated since higher is better; only words depend on it.
    """

    first_rung: float = 0.06
    reduction: float = 3.0
    finalists: int = 2
    pace: float = 0.25
    pace_growth: float = 0.5
    growth: float = GROWTH
    last_rung: float = LAST_RUNG
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of those that wait at a rung.

    `rung` counts from 1 and lies `at` a share of the probe. `kept`: trial → the share that it goes on to; one that was
    dropped earlier may be among them. `dropped`: trial → why, in words. `text`: the decision in a line for people.
    """

    rung: int
    at: float
    kept: Mapping[int, float]
    dropped: Mapping[int, str]
    text: str


def settings_of(
    search: SearchTable, *, warmup: float = 0.0, negated: bool = False
) -> HalvingSettings:
    """The rule's settings from a profile's `[search]`.

    `warmup`: the share of the probe in which the rate rises (`warmup_share`). `negated`: higher values are better.
    """
    return HalvingSettings(
        first_rung=after_warmup(search.first_rung, warmup),
        reduction=search.reduction,
        finalists=search.finalists,
        negated=negated,
    )


def profile_settings(profile: Profile, *, negated: bool = False) -> HalvingSettings:
    """The rule's settings for the trials of a profile."""
    return settings_of(profile.search, warmup=warmup_share(profile), negated=negated)


def after_warmup(first_rung: float, warmup: float) -> float:
    """Where the first rung lies with a warm-up of a share of the probe: rates that have not been reached yet say
    nothing of how they would do."""
    return max(first_rung, min(round(warmup, 6), LAST_RUNG))


def warmup_share(profile: Profile) -> float:
    """The share of a probe in which the learning rate rises, the longest one where it is searched.

    0 where it is not known: warm-up given in updates, of a training whose length is counted in epochs. The worker then
    puts the rung off.
    """
    train, search = profile.train, profile.search
    if train.lr_scheduler_type in WITHOUT_WARMUP:
        return 0.0
    if train.warmup_steps is not None:
        share = 0.0 if train.max_steps is None else train.warmup_steps / train.max_steps
    else:
        searched = search.space.get("warmup_ratio", [])
        ends = searched if isinstance(searched, list) else [searched.high]
        share = max([float(v) for v in ends] or [train.warmup_ratio])
    if search.probe_schedule == "full" and search.budget_tokens is None:
        share /= search.budget
    return min(1.0, share)


def rungs(settings: HalvingSettings) -> tuple[float, ...]:
    """Where trials are compared, shares of the probe in (0, 1), in order."""
    shares = [settings.first_rung]
    while (following := round(shares[-1] * settings.growth, 6)) <= CROWDED * settings.last_rung:
        shares.append(following)
    if shares[-1] < settings.last_rung - EPSILON:
        shares.append(settings.last_rung)
    return tuple(shares)


def first_until(settings: HalvingSettings) -> float:
    """Where every trial is sent first."""
    return rungs(settings)[0]


def first_look(settings: HalvingSettings) -> float:
    """The share of the probe at which trials are evaluated on their way to the first rung."""
    return first_until(settings) * FIRST_LOOK


def decide(
    settings: HalvingSettings, entrants: Sequence[Entrant], expected: int
) -> Decision | None:
    """The next decision, or None while there is none to make.

    A rung at which trials wait is decided once nobody is on the way to it. Those that come later (added by a person,
    resumed, started again with less memory) are compared with what the others had there, and hold nobody up.
    `expected`: trials of the search that are not added yet; the first rung waits for them.

    It never leaves a trial waiting for nothing: with no trial open and none expected, either there is a decision or no
    entrant is at a rung.
    """
    for at in _places(entrants, "rung"):
        waits_for_more = expected > 0 and at <= first_until(settings) + EPSILON
        if not waits_for_more and not any(
            e.state == "open" and _same(e.until, at) for e in entrants
        ):
            return _settle(settings, entrants, at)
    if expected > 0 or any(e.state in ("open", "rung") for e in entrants):
        return None
    return _revive(settings, entrants)


def decide_asha(
    settings: HalvingSettings, entrants: Sequence[Entrant], expected: int
) -> Decision | None:
    """The same for many GPUs: those that lead go on at once, and only the others wait.

    Of the trials that came to a rung so far the best 1/`reduction`, rounded down, go on (Li et al., A System for
    Massively Parallel Hyperparameter Tuning, arXiv 1810.05934, algorithm 2). Once nobody is on the way to that rung or
    to one before it, `decide` says what becomes of the rest.
    """
    for at in reversed(_places(entrants, "rung")):
        field = _field(entrants, at)
        lead = field[: int(len(field) / settings.reduction + EPSILON)]
        ahead = [e for e in lead if _waits(e, at)]
        if ahead:
            among = f"among the best {len(lead)} of {len(field)} so far"
            return _decision(settings, at, ahead, {}, f"{_them(ahead)}, {among}, to")
    coming = [e.until for e in entrants if e.state == "open"]
    places = _places(entrants, "rung")
    if expected > 0 or (coming and places and min(coming) <= min(places) + EPSILON):
        return None
    return decide(settings, entrants, expected)


def _settle(settings: HalvingSettings, entrants: Sequence[Entrant], at: float) -> Decision:
    """What becomes of those that wait at a rung which nobody is on the way to any more."""
    cut = _cut(settings, entrants, at)
    waiting = [e for e in cut.field if _waits(e, at)]
    kept = [e for e in waiting if e.trial in cut.passing]
    others = [e for e in waiting if e.trial not in cut.passing]
    # Those of the best that were lost meanwhile leave places: the next best take them.
    elsewhere = sum(e.state in ("open", "rung", "done") for e in entrants) - len(waiting)
    short = max(0, settings.finalists - elsewhere - len(kept))
    kept, others = [*kept, *others[:short]], others[short:]
    caught = sum(e.trial not in cut.leading for e in kept)
    what = f"{len(kept)} of {len(waiting)} go on"
    if 0 < caught < len(kept):
        what += f", {caught} of them since they may catch up,"
    return _decision(settings, at, kept, {e.trial: cut.reason(e) for e in others}, f"{what} to")


def _revive(settings: HalvingSettings, entrants: Sequence[Entrant]) -> Decision | None:
    """Sends dropped trials on after all: those dropped on account of trials that failed later, and the best ones while
    too few finished, or none as good as they are already."""
    for at in _places(entrants, "pruned"):
        with_failed = _cut(settings, entrants, at, with_out=True)
        without = _cut(settings, entrants, at)
        again = [
            e
            for e in without.field
            if e.state == "pruned"
            and _same(e.until, at)
            and e.trial in without.passing
            and e.trial not in with_failed.passing
        ]
        if again:
            why = "since trials that were better have failed"
            return _decision(settings, at, again, {}, f"{_them(again)} after all, {why}, to")
    spare = sorted((e for e in entrants if e.state == "pruned"), key=_by_last)
    done = [_by_last(e)[0] for e in entrants if e.state == "done"]
    missing = max(1, settings.finalists) - len(done)
    if missing > 0:
        again, why = spare[:missing], f"since fewer than {settings.finalists} came to the end"
    else:
        # Who finished may have got worse since: by overfitting, or by an explosion that nobody stopped.
        again = [e for e in spare[: settings.finalists] if _by_last(e)[0] < min(done)]
        why = "since all that came to the end are worse"
    if not again:
        return None
    at = again[0].until
    again = [e for e in again if _same(e.until, at)]
    return _decision(settings, at, again, {}, f"{_them(again)} after all, {why}, to")


@dataclass(frozen=True, slots=True)
class _Cut:
    """Who passes a rung. `field`: all that came there, best first; `leading` are part of `passing`."""

    at: float
    field: Sequence[Entrant]
    leading: frozenset[int]
    passing: frozenset[int]
    limit: float
    """The worst value of those that lead."""
    settings: HalvingSettings

    def reason(self, entrant: Entrant) -> str:
        """Why a trial does not pass, in words with numbers."""
        value = value_at(entrant, self.at)
        if not math.isfinite(value):
            return f"no value at {_share(self.at)}"
        sign, side = (-1, "below") if self.settings.negated else (1, "above")
        over = value - self.limit
        shown = _digits(over)
        cut = f"the cut of {sign * self.limit:.{shown}f} at {_share(self.at)}"
        said = f"{over:.{shown}f} {side} {cut}"
        if not over > 0:
            last = _loss_at(self.field[len(self.leading) - 1], self.at)
            lower = "losses" if last < _loss_at(entrant, self.at) else "rates"
            said = f"equal to {cut}, which lower {lower} passed"
        if not math.isfinite(_in_reach(entrant, self.at, 0)):
            return said
        best = sign * value_at(self.field[0], self.at)
        return f"{said}, and too slow to catch up with {best:.{shown}f}"


def _cut(
    settings: HalvingSettings, entrants: Sequence[Entrant], at: float, *, with_out: bool = False
) -> _Cut:
    field = _field(entrants, at, with_out=with_out)
    pace = _pace(settings, entrants)
    places = max(settings.finalists, int(len(field) / settings.reduction + EPSILON))
    leading = frozenset(e.trial for e in field[:places])
    values = [value_at(e, at) for e in field]
    best = values[0] if values else math.inf
    limit = values[min(places, len(values)) - 1] if values else math.inf
    catching_up = (e.trial for e in field[places:] if _in_reach(e, at, pace) < best)
    passing = leading | frozenset(catching_up)
    return _Cut(at, field, leading, passing, limit, settings)


def _pace(settings: HalvingSettings, entrants: Sequence[Entrant]) -> float:
    """The share of its pace that a trial is trusted to keep, among as many as came to the first rung; at most 1."""
    first = first_until(settings)
    came = sum(_waits(e, first) or _place(e, first) is not None for e in entrants)
    return min(1.0, settings.pace * math.pow(came / PACE_TRIALS, settings.pace_growth))


def _in_reach(entrant: Entrant, at: float, pace: float) -> float:
    """The value that a trial would end with if it kept `pace` of its pace; infinite where that is not known.

    How far it moved is the way from its highest value in the window down to the middle between the value now and the
    lowest: the value now may be an unlucky one.
    """
    place = _place(entrant, at)
    if place is None:
        return math.inf
    seen = [(s, v) for s, v in entrant.curve[: place + 1] if s >= WINDOW * at - EPSILON]
    if len(seen) < 2:
        return math.inf
    values = [v for _, v in seen]
    now, span = values[-1], seen[-1][0] - seen[0][0]
    moved = max(values) - (now + min(values)) / 2
    return now - pace * moved / span * (1 - seen[-1][0])


def value_at(entrant: Entrant, at: float) -> float:
    """The value at a rung; infinite where there is none.

    It is the first one measured there or after, since whole updates and the end of warm-up may move a rung on; of a
    trial that waits there, else its last one.
    """
    place = _place(entrant, at)
    return math.inf if place is None else entrant.curve[place][1]


def _loss_at(entrant: Entrant, at: float) -> float:
    """The loss that tells it from its equals at a rung; infinite where there is none."""
    place = _place_in(entrant.losses, entrant, at)
    return math.inf if place is None else entrant.losses[place][1]


def _place(entrant: Entrant, at: float) -> int | None:
    return _place_in(entrant.curve, entrant, at)


def _place_in(curve: Sequence[tuple[float, float]], entrant: Entrant, at: float) -> int | None:
    for place, (share, _) in enumerate(curve):
        if share >= at - EPSILON:
            return place
    stands_there = entrant.state in ("rung", "pruned") and _same(entrant.until, at)
    return len(curve) - 1 if stands_there and curve else None


def _field(entrants: Iterable[Entrant], at: float, *, with_out: bool = False) -> list[Entrant]:
    """All that came to a rung, best first; those that are out only when asked for."""
    came = (e for e in entrants if _waits(e, at) or _place(e, at) is not None)
    return sorted(
        (e for e in came if with_out or e.state != "out"),
        key=lambda e: (value_at(e, at), _loss_at(e, at), _rate(e), e.trial),
    )


def _waits(entrant: Entrant, at: float) -> bool:
    return entrant.state == "rung" and _same(entrant.until, at)


def _by_last(entrant: Entrant) -> tuple[float, float, float, int]:
    """By the last value, wherever that was: nearer to the end it is lower, and less is left to run."""
    last = entrant.curve[-1][1] if entrant.curve else math.inf
    loss = entrant.losses[-1][1] if entrant.losses else math.inf
    return last, loss, _rate(entrant), entrant.trial


def _rate(entrant: Entrant) -> float:
    return math.inf if entrant.learning_rate is None else entrant.learning_rate


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= EPSILON


def _places(entrants: Iterable[Entrant], state: EntrantState) -> list[float]:
    """Where trials of a state stand, in order."""
    return sorted({e.until for e in entrants if e.state == state})


def _decision(
    settings: HalvingSettings,
    at: float,
    kept: Sequence[Entrant],
    dropped: Mapping[int, str],
    text: str,
) -> Decision:
    places = rungs(settings)
    until = next((r for r in places if r > at + EPSILON), 1.0)
    rung = sum(r <= at + EPSILON for r in places)
    to = "the end" if until == 1.0 else _share(until)
    line = f"rung {rung} at {_share(at)}: {text} {to}"
    return Decision(rung, at, {e.trial: until for e in kept}, dict(dropped), line)


def _them(trials: Sequence[Entrant]) -> str:
    numbers = ", ".join(str(n) for n in sorted(e.trial for e in trials))
    return f"trial {numbers} goes on" if len(trials) == 1 else f"trials {numbers} go on"


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"


def _digits(difference: float) -> int:
    """Decimals that show a difference with two digits, 3 to 6."""
    if difference <= 0 or not math.isfinite(difference):
        return 3
    return min(6, max(3, 1 - math.floor(math.log10(difference))))
