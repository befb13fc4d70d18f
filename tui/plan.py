"""What a draft costs: batch, rows, steps, trials, as numbers or as spans where something is searched. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from core.catalogue import find, parameters
from core.data_size import (
    FileSize,
    joined_rows,
    probe_steps,
    steps_per_epoch,
    training_steps,
)
from core.mixture import CONCAT, set_size, totals
from core.params import DataTable, MethodTable, ModelTable, Range, SearchTable, TrainTable
from core.problems import Problem
from core.profile import Profile
from core.search.choice import Choice, choose
from core.search.cost import expected_share
from core.search.halving import profile_settings
from core.search.space import space_size
from tui.draft import SPACE, Review
from tui.space_text import Entry

_BYTES_A_TOKEN = 2
"""Fewer than text needs: a row shorter than the cut-off length times this surely fits into it."""


@dataclass(frozen=True, slots=True)
class DataCount:
    """The rows of the data files as far as they are counted."""

    train: tuple[FileSize, ...] = ()
    evaluation: tuple[FileSize, ...] = ()
    share: float | None = None
    """The part that was read while a count goes on; None when it is over."""
    problems: tuple[Problem, ...] = ()
    known: bool = False
    """Whether there is anything to go by."""
    strategy: str = CONCAT
    """How several data sets become one (`core.mixture`), and their weights."""
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A number, or the least and the most of it over the trials. `about`: rows may yet be left out."""

    low: float
    high: float
    about: bool = False

    def __str__(self) -> str:
        text = (
            f"{_round(self.low)}–{_round(self.high)}" if self.low != self.high else _round(self.low)
        )
        return f"~{text}" if self.about else text


@dataclass(frozen=True, slots=True)
class PastTime:
    """How long a training took of which the draft's is another one."""

    full: float
    """Seconds of the full training at the speed of the trials, times the GPUs of each."""
    study: str
    """The name of the study that they belong to."""
    on_gpu: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of a draft; None where one cannot be known (yet)."""

    batch: Span | None
    batch_parts: str
    train_rows: Span | None
    eval_rows: Span | None
    epoch: Span | None
    full: Span | None
    probe: Span | None
    trials: int | None
    """None: the search is not valid. 0: nothing is searched."""
    possible: int | None
    """Combinations that the space has; None: endless."""
    cost: float | None
    """All probes run whole, in full trainings; second runs of the best included."""
    counting: float | None
    """The share of the data files that is counted, while it is not all of them."""
    choice: Choice | None = None
    """How the search is run, with `auto` decided; None where nothing is searched or the search is not valid."""
    expected: float | None = None
    """What the search is expected to cost with its early stopping, in full trainings."""
    seconds: float | None = None
    """How long that takes one trial after another, times the GPUs of each; None where nothing tells."""
    timed: PastTime | None = None
    """What tells."""


def plan(
    review: Review,
    data: DataCount,
    gpus: int = 1,
    *,
    at_hand: int | None = None,
    past: PastTime | None = None,
) -> Plan:
    """The numbers of a draft with `gpus` for each trial; `at_hand`: how many the study may use, None on the CPU."""
    size = _Sizes(review, gpus)
    known = data.known and not data.problems
    stage = str(review.values["method.stage"])
    about = known and _may_lose_rows(review.values, data)
    split = (
        _spread(size, ("data.val_size", "data.max_samples"), lambda v: _split(v, data))
        if known
        else None
    )
    train = evaluation = epoch = None
    if split:
        train = _span((t for t, _ in split), about)
        evaluation = _span((e for _, e in split), about)
        epoch = _span_of(
            size,
            _EPOCH,
            lambda v: steps_per_epoch(max(1, _sequences(v, data, stage)), size.batch(v)),
            about,
        )
    full = _full_span(size, data, stage if known else None, about)
    budget = review.values["search.budget"]
    probe = full and Span(
        probe_steps(int(full.low), budget), probe_steps(int(full.high), budget), full.about
    )
    profile = _searching(review)
    choice = choose(profile, gpus=at_hand) if profile is not None else None
    cost, expected = (
        _costs(profile, choice) if profile is not None and choice is not None else (None, None)
    )
    return Plan(
        batch=_span_of(size, _BATCH, size.batch),
        batch_parts=size.parts(),
        train_rows=train,
        eval_rows=evaluation,
        epoch=epoch,
        full=full,
        probe=probe,
        trials=_count(review, choice),
        possible=_possible(review, profile),
        cost=cost,
        counting=data.share,
        choice=choice,
        expected=expected,
        seconds=past.full * expected if past and expected else None,
        timed=past,
    )


_BATCH = ("train.per_device_train_batch_size", "train.gradient_accumulation_steps")
_EPOCH = (
    *_BATCH,
    "data.val_size",
    "data.max_samples",
    "data.packing",
    "data.cutoff_len",
    "alignment.ppo_epochs",
)
_FULL = (*_EPOCH, "train.num_train_epochs", "train.max_steps")


class _Sizes:
    """The ends between which each parameter lies: those of its entry where it is searched."""

    def __init__(self, review: Review, gpus: int) -> None:
        self._review, self._gpus = review, gpus

    def ends(self, key: str) -> tuple[Any, ...] | None:
        """The least and the most that the parameter becomes; None where it has a problem."""
        if key in self._review.problems:
            return None
        entry = self._review.entries.get(key)
        return (self._review.values[key],) if entry is None else _ends(entry)

    def batch(self, values: Mapping[str, Any]) -> int:
        """Rows an update."""
        return int(values[_BATCH[0]]) * int(values[_BATCH[1]]) * self._gpus

    def parts(self) -> str:
        """The effective batch's factors."""
        factors = []
        for key in _BATCH:
            ends = self.ends(key)
            factors.append("?" if ends is None else str(Span(min(ends), max(ends))))
        if self._gpus > 1:
            factors.append(f"{self._gpus} GPUs")
        return " × ".join(factors)


def _ends(entry: Entry) -> tuple[Any, ...]:
    if isinstance(entry, Range):
        return (entry.low, entry.high)
    numbers = [v for v in entry if isinstance(v, int | float)]
    return (min(numbers), max(numbers))


def _spread(
    size: _Sizes, keys: Sequence[str], of: Callable[[Mapping[str, Any]], Any]
) -> list[Any] | None:
    """`of` at every corner of what `keys` may become; None where one of them has a problem."""
    ends = []
    for key in keys:
        known = size.ends(key)
        if known is None:
            return None
        ends.append(known)
    return [of(dict(zip(keys, corner, strict=True))) for corner in product(*ends)]


def _span(numbers: Any, about: bool = False) -> Span:
    listed = list(numbers)
    return Span(min(listed), max(listed), about)


def _span_of(
    size: _Sizes,
    keys: Sequence[str],
    of: Callable[[Mapping[str, Any]], float],
    about: bool = False,
) -> Span | None:
    numbers = _spread(size, keys, of)
    return None if numbers is None else _span(numbers, about)


def _full_span(size: _Sizes, data: DataCount, stage: str | None, about: bool) -> Span | None:
    """Updates of the full training; `stage` is None where the rows are not known."""
    most = size.ends("train.max_steps")
    if most and None not in most:  # The rows do not matter then.
        return _span(int(m) for m in most)
    if stage is None:
        return None
    return _span_of(
        size,
        _FULL,
        lambda v: training_steps(
            steps_per_epoch(max(1, _sequences(v, data, stage)), size.batch(v)),
            float(v["train.num_train_epochs"]),
            None if v["train.max_steps"] is None else int(v["train.max_steps"]),
        ),
        about,
    )


def _sequences(values: Mapping[str, Any], data: DataCount, stage: str) -> int:
    """What batches are made of: rows, or sequences that rows are joined into."""
    rows = _split(values, data)[0]
    if stage == "ppo":
        # An epoch goes over the answer to each prompt so often.
        return rows * int(values["alignment.ppo_epochs"])
    if not (stage == "pt" or (stage == "sft" and values["data.packing"])):
        return rows
    counted = max(1, sum(f.rows for f in data.train))
    size = round(sum(f.bytes for f in data.train) * rows / counted)
    joined = joined_rows(rows, size, int(values["data.cutoff_len"]))
    return joined if stage == "pt" else min(rows, joined)


def _split(values: Mapping[str, Any], data: DataCount) -> tuple[int, int]:
    """Rows to train on and to evaluate on."""
    most = values["data.max_samples"]
    sizes = [set_size(f.rows, f.wanted, most) for f in data.train]
    weights = data.weights if data.weights and len(data.weights) == len(sizes) else None
    apart = 0.0 if data.evaluation else values["data.val_size"]
    rows, aside = totals(sizes, apart, data.strategy, weights)
    if data.evaluation:
        aside = sum(set_size(f.rows, f.wanted, most).rows for f in data.evaluation)
    return max(0, rows), aside


_OTHER_ROWS = ("pt", "rm", "dpo")
"""Stages that join texts into blocks, or leave out pairs of which both answers are the same."""


def _may_lose_rows(values: Mapping[str, Any], data: DataCount) -> bool:
    """Whether the trials may have other rows than the files: joined ones, ones that are cut off, ones not yet read."""
    if data.share is not None or values["data.packing"] or values["method.stage"] in _OTHER_ROWS:
        return True
    most = values["data.cutoff_len"] * _BYTES_A_TOKEN
    return any(f.longest is None or f.longest > most for f in (*data.train, *data.evaluation))


def split_problem(review: Review, data: DataCount) -> Problem | None:
    """Validation data that leaves nothing to train on."""
    values = review.values
    if not data.known or data.share is not None or data.problems or data.evaluation:
        return None
    rows, aside = _split(values, data)
    if rows > 0 or "data.val_size" in review.problems:
        return None
    wrong = f"sets all {aside} rows aside, so that none is left to train on"
    return Problem("data.val_size", wrong, "make it smaller, or 0")


def all_problems(review: Review, data: DataCount) -> dict[str, Problem]:
    """Everything that is wrong, by the line on which it is shown, in the order of the form."""
    found = dict(review.problems)
    split = split_problem(review, data)
    for problem in (*data.problems, *((split,) if split else ())):
        found.setdefault(problem.key, problem)
    order = {p.key: i for i, p in enumerate(parameters())}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _searching(review: Review) -> Profile | None:
    """A profile with the draft's search, whatever else is wrong; None where there is no search or it is wrong."""
    if not review.entries or _broken(review):
        return None
    return review.profile or _with_search(review)


def _possible(review: Review, profile: Profile | None) -> int | None:
    """How many combinations the space has; None where they are endless or cannot be known."""
    if profile is not None:
        return space_size(profile)
    return None if review.entries or _broken(review) else 1


def _broken(review: Review) -> bool:
    """Whether something is wrong with the search itself."""
    wrong = {p.key for p in review.problems.values()}
    return any(k.startswith(SPACE) or k in _DECISIVE for k in wrong)


_DECISIVE = ("search.trials", "search.strategy", "search.stopping", "search.budget")


def _with_search(review: Review) -> Profile:
    """A profile with the search of a draft in which something else is wrong."""
    tables: dict[str, dict[str, Any]] = {"search": {}, "method": {}, "train": {}}
    for key, value in review.values.items():
        table, _, name = key.partition(".")
        if table in tables and key not in review.problems and value is not None:
            tables[table][name] = value
    tables["search"]["space"] = {find(key).name: entry for key, entry in review.entries.items()}
    return replace(
        _ANY,
        search=SearchTable(**tables["search"]),
        method=MethodTable(**tables["method"]),
        train=TrainTable(**tables["train"]),
    )


def _count(review: Review, choice: Choice | None) -> int | None:
    if choice is not None:
        return choice.trials
    return None if review.entries or _broken(review) else 0


def _costs(profile: Profile, choice: Choice) -> tuple[float | None, float | None]:
    """What the search costs at most and is expected to cost, in full trainings; None where that cannot be known."""
    search = profile.search
    if search.budget_tokens is not None:
        return None, None
    share = expected_share(profile_settings(profile), choice.stopping, choice.trials)
    most = (choice.trials + search.confirm) * search.budget
    return most, (choice.trials * share + search.confirm) * search.budget


_ANY = Profile(model=ModelTable(model_name_or_path="demo"), data=DataTable(dataset="demo"))
"""The size of a search space depends on nothing but the space."""


def _round(value: float) -> str:
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.3g}"
