"""Fixes for a run that does not fit its device: searched by the closed form, proven by dry runs, cheapest first.

A fix is a small combination of changes that keeps the effective batch. Candidates come in the order of their price
(see `candidates`); each is dry-run before it is offered, two at a time, and the search ends at the first three ideas
that fit. After an out-of-memory ending the dry run must first show the crash itself: a method that finds room where
there was none cannot be trusted with a remedy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from core.memory.forecast import GIB, Category, Forecast, Lengths, Target
from core.memory.models.shape import Architecture
from core.memory.prover import ProofError, is_simulated
from core.memory.remedies import dominance
from core.memory.remedies.candidates import Candidate, Candidates, Question
from core.memory.remedies.costs import SOURCES
from core.memory.remedies.lattice import (
    SAME,
    Move,
    batch_move,
    changes_of,
    divisors,
    quickening,
    searched,
    tightening,
)
from core.profile import Profile
from core.values import Scalar

Prove = Callable[[Sequence[Profile]], Sequence[Forecast | ProofError]]
"""Dry runs of profiles on the device and data in question, in order; a handful at a time runs side by side."""

MOST_PROOFS = 6
"""Dry runs of one search, the one of the profile itself included: of a 7B model each takes some seconds."""
AT_ONCE = 2
CLEAR = 1.2
"""A profile fits beyond doubt where its estimate times this does."""
WORTH_IT = 0.98
"""A profile that fits is changed only for one that takes at most this share of its time."""


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """A change after which the run fits."""

    changes: dict[str, Scalar]
    """Parameters' names to new values; empty where the profile is right as it is."""
    text: str
    forecast: Forecast
    headroom: int
    """Bytes of the allocator's capacity that stay free."""
    slowdown: tuple[float, float]
    """The time per token as a factor of what it is now, from the least to the most."""
    source: str
    """Where the slowdown comes from."""
    numerics: Literal["equivalent", "different"]
    effect: str
    """What it does to the result."""
    proven: bool
    """Whether a dry run says that it fits, and not the closed form alone."""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What can be done about a profile's memory."""

    dominant: Category
    summary: str
    """What dominates the peak, and so what helps."""
    fixes: tuple[Fix, ...]
    """The cheapest first, each another idea."""
    forecast: Forecast
    """Of the profile as it is, proven where that is possible."""
    fits: bool
    """Whether it fits as it is."""
    reproduced: bool | None
    """After a crash: whether the forecast shows it. None where there was none, or where no dry run is possible."""
    problem: str = ""
    """Why nothing can be proven; empty where it can."""
    tried: int
    """Dry runs that were made."""


def find_fixes(
    profile: Profile,
    architecture: Architecture,
    target: Target,
    lengths: Lengths,
    prove: Prove | None,
    *,
    guard: float,
    crashed: bool,
    want: int = 3,
    only_equivalent: bool = False,
) -> Advice:
    """The first `want` fixes for a profile that does not fit, or that ran out of memory (`crashed`).

    `prove` None means estimates alone. Parameters that the profile's search varies are left alone where there is any
    other way. What cannot be proven is the advice's `problem`, and no exception.
    """
    plain = profile.as_training()
    question = Question(plain, architecture, target, lengths, guard)
    axes = [
        tuple(m for m in axis if not only_equivalent or m.numerics == "equivalent")
        for axis in tightening(plain, architecture, target, lengths)
    ]
    free = [tuple(m for m in axis if not searched(profile, m)) for axis in axes]
    runs = _Runs(question, Candidates(question, _filled(free)), prove)
    fixes = _search(runs, want)
    if not fixes and free != axes and not runs.fits:
        runs = runs.again(Candidates(question, _filled(axes)))
        fixes = _search(runs, want)
    reproduced = None if not crashed or (runs.problem and not runs.fits) else not runs.fits
    return Advice(
        dominant=runs.base.dominant,
        summary=dominance.explain(runs.base, plain),
        fixes=tuple(fixes),
        forecast=runs.base,
        fits=runs.fits,
        reproduced=reproduced,
        problem=_unreproduced(runs) if reproduced is False else runs.problem,
        tried=runs.made,
    )


def fastest(
    profile: Profile,
    architecture: Architecture,
    target: Target,
    lengths: Lengths,
    prove: Prove | None,
    *,
    guard: float,
    now: Forecast | None = None,
) -> Fix | None:
    """The fastest way to run a profile that fits, with the same result up to rounding; None where that is as it is.

    Parameters that the profile's search varies are left alone. `now` is the profile's own forecast where it is known
    (an advice has it), which spares its dry run.
    """
    plain = profile.as_training()
    question = Question(plain, architecture, target, lengths, guard)
    axes = [
        tuple(m for m in axis if not searched(profile, m)) for axis in quickening(plain, target)
    ]
    candidates = Candidates(question, _filled(axes), spare=False)
    runs = _Runs(question, candidates, prove)
    if now is not None:
        runs.take(now)

    def quicker(count: int) -> list[Candidate]:
        found = candidates.first(count)
        return [c for c in found if sum(c.slowdown) / 2 <= WORTH_IT]

    judged = runs.begin(quicker)
    while judged:
        fitting = [_fix(question, c, forecast) for c, forecast in judged if forecast is not None]
        if fitting:
            return min(fitting, key=lambda fix: sum(fix.slowdown))
        judged = runs.judge(quicker(min(AT_ONCE, runs.left)))
    return None


def fit_batch(
    profile: Profile,
    architecture: Architecture,
    target: Target,
    lengths: Lengths,
    prove: Prove | None,
    *,
    guard: float,
) -> Fix | None:
    """The largest batch per device that fits, with the effective batch held; None where not even one row does.

    The fix has no changes where that is the profile's own batch.
    """
    plain = profile.as_training()
    question = Question(plain, architecture, target, lengths, guard)
    own = plain.train.per_device_train_batch_size
    moves = [batch_move(plain, size) for size in divisors(plain.batch_per_gpu())]
    candidates = Candidates(question, [moves], most_moves=1, spare=False)
    # An estimate is all that is asked for where nothing can be proven; as a remedy it would be too bold.
    runs = _Runs(question, candidates, prove, bold=True)
    best: tuple[Candidate, Forecast] | None = None

    def larger(count: int) -> list[Candidate]:
        """The largest that may fit, down to the best so far: each dry run moves the closed form's boundary."""
        above = [c for c in candidates.all() if best is None or _batch(c) > _batch(best[0])]
        return sorted(above, key=_batch, reverse=True)[:count]

    judged = runs.begin(larger)
    while judged:
        for candidate, forecast in judged:
            if forecast is not None and (best is None or _batch(candidate) > _batch(best[0])):
                best = candidate, forecast
        judged = runs.judge(larger(min(AT_ONCE, runs.left)))
    if best is None:
        return None
    fix = _fix(question, *best)
    if _batch(best[0]) == own:
        return msgspec.structs.replace(fix, changes={}, text=f"the batch of {own} per device fits")
    return fix


@dataclass(slots=True)
class _Runs:
    """The dry runs of a search, and what they say of the profile as it is."""

    question: Question
    candidates: Candidates
    prove: Prove | None
    bold: bool = False
    """Whether the estimate alone may recommend what only a proof should."""
    made: int = 0
    problem: str = ""
    known: bool = False
    """Whether `base` is more than the closed form's word."""
    base: Forecast = field(init=False)
    _results: list[tuple[Profile, Forecast | ProofError]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = self.question.estimate(self.question.profile)
        if self.prove is None:
            self._give_up("no dry run was made")

    @property
    def left(self) -> int:
        """How many dry runs may still be made."""
        return MOST_PROOFS - self.made

    @property
    def fits(self) -> bool:
        """Whether the profile as it is fits."""
        return self.question.fit(self.base).fits

    @property
    def roomy(self) -> bool:
        """Whether the profile fits with so much room that no candidate is worth a dry run beside it."""
        held = self.question.fit(self.base)
        return held.fits and self.base.needed * CLEAR <= held.capacity

    def begin(
        self, first: Callable[[int], list[Candidate]]
    ) -> list[tuple[Candidate, Forecast | None]]:
        """Dry-run the profile itself beside a candidate, where it is not known yet; judge the `first` so many."""
        if self.prove is None or self.known:
            return self.judge(first(AT_ONCE))
        beside = first(AT_ONCE - 1)
        results = self._run([self.question.profile, *(c.profile for c in beside)])
        own = results[0]
        if isinstance(own, ProofError):
            self._give_up(str(own))
            return self.judge(beside)
        self.take(own)
        if not beside:
            # What the dry run of the profile teaches may let some through.
            return self.judge(first(min(AT_ONCE, self.left)))
        return self._judged(beside, results[1:])

    def take(self, own: Forecast) -> None:
        """What the profile itself needs, by a dry run or as it is known."""
        self.base = own
        self.known = True
        self._results.append((self.question.profile, own))
        if self.prove is not None and own.tier != "proof":
            # A dry run sees more than the closed form all the same, and goes on as the better estimate.
            self.problem = " ".join(own.notes) or "the dry run cannot see all of this run"
            self.candidates.careful = not self.bold
        if self.prove is not None:
            self.candidates.learn(None, own)

    def again(self, candidates: Candidates) -> "_Runs":
        """The same with other candidates, and with what is known of the profile itself."""
        runs = _Runs(self.question, candidates, self.prove, bold=self.bold, made=self.made)
        runs.problem = self.problem
        if self.known:
            runs.take(self.base)
        return runs

    def judge(self, batch: Sequence[Candidate]) -> list[tuple[Candidate, Forecast | None]]:
        """The candidates with the forecast of each that fits, None for one that does not or that cannot run."""
        if self.prove is None:
            for candidate in batch:
                self.candidates.tried(candidate)
            return [(c, self.candidates.estimated(c)) for c in batch]
        return self._judged(batch, self._run([c.profile for c in batch]))

    def _judged(
        self, batch: Sequence[Candidate], results: Sequence[Forecast | ProofError]
    ) -> list[tuple[Candidate, Forecast | None]]:
        judged: list[tuple[Candidate, Forecast | None]] = []
        for candidate, result in zip(batch, results, strict=True):
            self.candidates.tried(candidate)
            fits = False
            if not isinstance(result, ProofError):
                if is_simulated(candidate.profile):
                    self.candidates.learn(candidate, result)
                fits = self.question.fit(result).fits
            if not fits:
                self.candidates.failed(candidate)
            judged.append((candidate, result if isinstance(result, Forecast) and fits else None))
        return judged

    def _run(self, profiles: Sequence[Profile]) -> Sequence[Forecast | ProofError]:
        """Dry-run the profiles, each once: a candidate may be the profile itself."""
        assert self.prove is not None  # begin and judge see to it.
        wanted = [
            p for i, p in enumerate(profiles) if self._done(p) is None and p not in profiles[:i]
        ]
        # What several GPUs share is estimated: no dry run can say more.
        self._results += [(p, self.question.estimate(p)) for p in wanted if not is_simulated(p)]
        wanted = [p for p in wanted if is_simulated(p)]
        if wanted:
            self.made += len(wanted)
            self._results += zip(wanted, self.prove(wanted), strict=True)
        done = (self._done(profile) for profile in profiles)
        return [result for result in done if result is not None]

    def _done(self, profile: Profile) -> Forecast | ProofError | None:
        return next((result for known, result in self._results if known == profile), None)

    def _give_up(self, problem: str) -> None:
        """Go on with estimates: dry runs of one model fail for the same reason again and again."""
        self.problem = problem
        self.prove = None
        self.candidates.careful = not self.bold


def _search(runs: _Runs, want: int) -> list[Fix]:
    """The fixes, each of another idea, the cheapest first."""
    question, candidates = runs.question, runs.candidates
    found: list[tuple[Candidate, Fix]] = []
    judged = runs.begin(lambda count: [] if runs.roomy else candidates.spread([], count))
    while not runs.fits:
        found += [
            (c, _fix(question, c, forecast)) for c, forecast in judged if forecast is not None
        ]
        batch = _batch_after(runs, found, want)
        if not batch:
            break
        judged = runs.judge(batch)
    found.sort(key=lambda pair: pair[0].price)
    kept = found[:want]
    same = next((pair for pair in found[want:] if pair[0].equivalent), None)
    if same is not None and not any(c.equivalent for c, _ in kept):
        kept[-1] = same
    return [fix for _, fix in kept]


def _batch_after(runs: _Runs, found: Sequence[tuple[Candidate, Fix]], want: int) -> list[Candidate]:
    """What is to be judged next; empty when enough is found, or nothing is left to try."""
    candidates = runs.candidates
    count = min(AT_ONCE, runs.left)
    if count <= 0:
        return []
    ideas = [c.idea for c, _ in found]
    if not any(c.equivalent for c, _ in found):
        # Nobody is asked before a fix that leaves the result as it is: one of those is wanted in any case.
        same = candidates.spread(ideas, 1, equivalent=True)
        if len(found) >= want:
            return same
    elif len(found) >= want:
        return []
    else:
        same = []
    batch = candidates.spread(ideas, count)
    if same and same[0] not in batch:
        batch = [*batch[: count - 1], *same]
    if not found and runs.left <= AT_ONCE:
        # The last dry runs go to what is most likely to fit: a dear fix is better than none.
        roomiest = candidates.roomiest()
        batch = [roomiest, *batch][:count] if roomiest and roomiest not in batch else batch
    return batch


def _fix(question: Question, candidate: Candidate, forecast: Forecast) -> Fix:
    moves = candidate.moves
    effects = dict.fromkeys(move.effect for move in moves if move.effect != SAME)
    different = any(move.numerics == "different" for move in moves)
    return Fix(
        changes=changes_of(moves),
        text="; ".join(move.text for move in moves),
        forecast=forecast,
        headroom=question.fit(forecast).headroom,
        slowdown=candidate.slowdown,
        source="; ".join(SOURCES[move.axis] for move in moves),
        numerics="different" if different else "equivalent",
        effect="; ".join(effects) or SAME,
        proven=forecast.tier == "proof",
    )


def _filled(axes: Sequence[tuple[Move, ...]]) -> list[tuple[Move, ...]]:
    return [axis for axis in axes if axis]


def _batch(candidate: Candidate) -> int:
    return candidate.profile.train.per_device_train_batch_size


def _unreproduced(runs: _Runs) -> str:
    """Why no remedy is offered after a crash that the forecast does not show."""
    fit = runs.question.fit(runs.base)
    shown = "the dry run" if runs.base.tier == "proof" else "the estimate"
    why = f" ({runs.problem})" if runs.problem else ""
    return (
        f"{shown} needs {runs.base.needed / GIB:.2f} of {fit.capacity / GIB:.2f} GiB and does not show "
        f"the crash{why}"
    )
