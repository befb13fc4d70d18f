"""The changes of a profile that are worth a dry run, cheapest first: the closed form orders and prunes, nothing is run.

A candidate is a combination of few moves. Its price is its expected slowdown (the middle of the range), plus what one
would pay to be spared its change of the result, plus a little for every change after the first. So at similar slowdown
a change that leaves the result as it is comes before one that does not, and one change before three.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from core.memory.closed_form import estimate
from core.memory.forecast import Fit, Forecast, Lengths, Target, capacity, fit
from core.memory.models.shape import Architecture
from core.memory.remedies.costs import slowdown
from core.memory.remedies.lattice import Axis, Move, apply, combined
from core.profile import Profile

MANY_CHANGES = 0.03
"""What every change after the first adds to a candidate's price."""
MOST_MOVES = 3
"""Moves in a candidate, where three are enough."""
FAR = 300
"""How many candidates are looked at for the one with the most room."""


@dataclass(frozen=True, slots=True)
class Question:
    """A profile, and the device that it is to fit."""

    profile: Profile
    architecture: Architecture
    target: Target
    lengths: Lengths
    guard: float

    def estimate(self, profile: Profile) -> Forecast:
        """The closed form of a changed profile."""
        return estimate(profile, self.architecture, self.target, self.shortened(profile))

    def shortened(self, profile: Profile) -> Lengths:
        """The longest rows under the profile's own cut-off."""
        most = profile.data.cutoff_len
        train, evaluation = self.lengths.train, self.lengths.evaluation
        shortened: Lengths = msgspec.structs.replace(
            self.lengths, train=min(train, most), evaluation=min(evaluation, most)
        )
        return shortened

    def fit(self, forecast: Forecast) -> Fit:
        """The forecast against the device."""
        return fit(forecast, self.target, self.guard)

    def slowdown(self, after: Profile) -> tuple[float, float]:
        """The time per token of a changed profile as a factor."""
        return slowdown(self.profile, after, self.architecture, self.target, self.lengths)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A changed profile that may fit."""

    moves: tuple[Move, ...]
    profile: Profile
    slowdown: tuple[float, float]
    price: float

    @property
    def idea(self) -> frozenset[Axis]:
        """Which kinds of change it is made of: batch 4 and batch 2 are one idea."""
        return _idea(self.moves)

    @property
    def equivalent(self) -> bool:
        """Whether the result stays the same up to rounding, on the GPUs that the run has: one that may go unasked."""
        return all(
            move.numerics == "equivalent" and "gpus_per_trial" not in move.changes
            for move in self.moves
        )


def priced(question: Question, moves: tuple[Move, ...]) -> Candidate | None:
    """The candidate that the moves make; None where they do not go together."""
    changed = apply(question.profile, moves)
    if changed is None:
        return None
    least, most = question.slowdown(changed)
    burden = sum(move.burden for move in moves) + MANY_CHANGES * (len(moves) - 1)
    return Candidate(moves, changed, (least, most), (least + most) / 2 + burden)


@dataclass(slots=True)
class Candidates:
    """The candidates of a question in the order of their price, with what dry runs have taught so far."""

    question: Question
    axes: Sequence[Sequence[Move]]
    most_moves: int = MOST_MOVES
    spare: bool = True
    """Whether a candidate is left out when a part of it would do: a change that is not needed is not proposed."""
    careful: bool = False
    """Whether to leave out what only a proof may recommend: in full fine-tuning, accumulation where there was none
    keeps gradients alive from one batch to the next, which can need more than the smaller batch saves."""
    _learnt: list[tuple[frozenset[Axis], int, int]] = field(default_factory=list)
    """What the closed form said that runs need and what dry runs found, by their ideas."""
    _context: int | None = None
    """What the process holds besides, as dry runs have it."""
    _known: dict[tuple[Move, ...], Forecast | None] = field(default_factory=dict)
    _failed: set[tuple[Move, ...]] = field(default_factory=set)
    _tried: set[tuple[Move, ...]] = field(default_factory=set)
    _ordered: list[Candidate] | None = None

    def first(self, count: int) -> list[Candidate]:
        """The cheapest that the closed form lets through."""
        return list(islice(self._promising(), count))

    def spread(
        self, taken: Iterable[frozenset[Axis]], count: int, *, equivalent: bool = False
    ) -> list[Candidate]:
        """The cheapest that the closed form lets through, each of another idea than the rest, and none that holds all
        of an idea of `taken`. `equivalent` leaves out what changes the result."""
        ideas = list(taken)
        found: list[Candidate] = []
        if count <= 0:
            return found

        def wanted(candidate: Candidate) -> bool:
            if equivalent and not candidate.equivalent:
                return False
            return not any(candidate.idea >= idea for idea in ideas)

        for candidate in self._promising(wanted):
            found.append(candidate)
            ideas.append(candidate.idea)
            if len(found) == count:
                break
        return found

    def all(self) -> list[Candidate]:
        """All that the closed form lets through."""
        return list(self._promising())

    def roomiest(self) -> Candidate | None:
        """The one that the closed form leaves with the most room, whatever its price."""
        promising = islice(self._promising(), FAR)
        return min(promising, key=lambda c: self._needs(c.moves), default=None)

    def tried(self, candidate: Candidate) -> None:
        """This one was judged, and is not to come again."""
        self._tried.add(candidate.moves)

    def failed(self, candidate: Candidate) -> None:
        """A dry run said that this one does not fit, or that it cannot run."""
        self._failed.add(candidate.moves)

    def learn(self, candidate: Candidate | None, proof: Forecast) -> None:
        """Hold a dry run of a candidate (None: of the profile itself) against the closed form."""
        moves = candidate.moves if candidate else ()
        self._context = proof.context
        said = self._estimate(moves)
        if said is not None and said.needed:
            self._learnt.append((_idea(moves), said.needed, proof.needed))

    def estimated(self, candidate: Candidate) -> Forecast:
        """What the closed form says of it."""
        forecast = self._estimate(candidate.moves)
        assert forecast is not None  # A candidate is made only of moves that go together.
        return forecast

    def _promising(self, wanted: Callable[[Candidate], bool] | None = None) -> Iterator[Candidate]:
        if self._ordered is None:
            self._ordered = self._sorted()
        for candidate in self._ordered:
            if candidate.moves in self._tried or (wanted and not wanted(candidate)):
                continue
            if not self._fits(candidate.moves):
                continue
            if self.spare and any(self._fits(part) for part in _parts(candidate.moves)):
                continue
            yield candidate

    def _sorted(self) -> list[Candidate]:
        found = (priced(self.question, moves) for moves in combined(self.axes, self.most_moves))
        made = [c for c in found if c is not None]
        if not any(self._fits(c.moves) for c in made):
            same = [[m for m in axis if m.numerics == "equivalent"] for axis in self.axes]
            deep = (self._deep([axis for axis in same if axis]), self._deep(self.axes))
            # The few moves stay: what dry runs teach may let them through.
            made += [c for c in deep if c is not None]
        return sorted(made, key=lambda c: c.price)

    def _fits(self, moves: tuple[Move, ...]) -> bool:
        if moves in self._failed or (
            self.careful and _raises_gradients(self.question.profile, moves)
        ):
            return False
        forecast = self._estimate(moves)
        if forecast is None:
            return False
        context = forecast.context if self._context is None else self._context
        room = capacity(self.question.target, context)
        return self._expected(moves, forecast.needed) * (1 + self.question.guard) <= room

    def _expected(self, moves: tuple[Move, ...], said: int) -> float:
        """What a dry run can be expected to need where the closed form says `said`: corrected by the most similar dry
        run so far, the latest among equals, as similar runs have similar gaps between their tensors. Whether the
        error grows with the run or is always there is not known: what asks for less is taken, and a dry run has the
        last word."""
        idea = _idea(moves)
        nearest = min(
            reversed(self._learnt), key=lambda known: len(idea ^ known[0]), default=(idea, 1, 1)
        )
        _, before, found = nearest
        return min(said * found / before, said + (found - before))

    def _needs(self, moves: tuple[Move, ...]) -> int:
        forecast = self._estimate(moves)
        return forecast.needed if forecast else 0

    def _estimate(self, moves: tuple[Move, ...]) -> Forecast | None:
        if moves not in self._known:
            changed = apply(self.question.profile, moves)
            self._known[moves] = None if changed is None else self.question.estimate(changed)
        return self._known[moves]

    def _deep(self, axes: Sequence[Sequence[Move]]) -> Candidate | None:
        """Where no few moves are enough: all of them at once, then without those that can be spared, dearest first."""
        moves: tuple[Move, ...] = ()
        # A change of method comes first: others are allowed only under it.
        for axis in sorted(axes, key=lambda axis: axis[0].axis != "method"):
            longer = [(*moves, m) for m in axis if self._estimate((*moves, m)) is not None]
            best = min(longer, key=self._needs, default=moves)
            if self._needs(best) < self._needs(moves):
                moves = best
        if not self._fits(moves):
            return None
        for move in sorted(moves, key=self._price_alone, reverse=True):
            fewer = tuple(m for m in moves if m is not move)
            if fewer and self._fits(fewer):
                moves = fewer
        return priced(self.question, moves)

    def _price_alone(self, move: Move) -> float:
        candidate = priced(self.question, (move,))
        return candidate.price if candidate else 1.0


def _idea(moves: Iterable[Move]) -> frozenset[Axis]:
    return frozenset(move.axis for move in moves)


def _parts(moves: tuple[Move, ...]) -> Iterator[tuple[Move, ...]]:
    """The moves without one of them."""
    if len(moves) > 1:
        for index in range(len(moves)):
            yield moves[:index] + moves[index + 1 :]


def _raises_gradients(profile: Profile, moves: tuple[Move, ...]) -> bool:
    trains_weights = profile.method.finetuning_type != "lora"
    replaced = any(move.axis == "method" for move in moves)
    accumulates = profile.train.gradient_accumulation_steps > 1
    smaller = any(move.axis == "batch" for move in moves)
    return trains_weights and not replaced and not accumulates and smaller
