"""What `tunedeck estimate` and `tunedeck fit` print: text of at most 80 columns, and JSON. Pure."""

import textwrap
from dataclasses import dataclass
from typing import Any

from core.memory.fixes import Advice, Fix
from core.memory.forecast import (
    CATEGORIES,
    GUARD_UNKNOWN,
    MOMENTS,
    Forecast,
    Lengths,
    Target,
    fit,
)
from core.memory.limits import STEP, Bound
from core.memory.models.shape import Architecture
from tui import words
from tui.memory_view import MOMENT_WORDS
from tui.text_table import table

WIDTH = 80


@dataclass(frozen=True, slots=True)
class Place:
    """The device that is forecast for."""

    target: Target
    label: str
    """As it is called in a sentence."""
    here: bool = True
    """False for a GPU that is only imagined."""
    guard: float = GUARD_UNKNOWN


@dataclass(frozen=True, slots=True)
class Estimate:
    """Everything that `tunedeck estimate` says."""

    profile: str
    place: Place
    architecture: Architecture
    lengths: Lengths
    forecast: Forecast
    smallest: int | None
    batch: Bound
    batch_now: int
    sequence: Bound
    problem: str = ""
    """Why nothing could be proven though it was asked for."""
    varied: tuple[str, ...] = ()
    """What the profile's search varies of what memory depends on."""

    @property
    def fits(self) -> bool:
        return fit(self.forecast, self.place.target, self.place.guard).fits


def estimate_text(said: Estimate) -> str:
    """The estimate for people."""
    forecast = said.forecast
    lines = [
        *_wrapped(f"{said.profile}, on {said.place.label}"),
        *_wrapped(_model_line(said.architecture, said.lengths)),
        "",
        *_wrapped(verdict(forecast, said.place)),
    ]
    if said.problem:
        lines += _wrapped(f"Nothing is proven: {said.problem}")
    lines += ["", f"At the peak, {_peak(forecast)}:", _parts_table(forecast), ""]
    lines += ["The most allocated in each part of the run:", _moments_table(forecast), ""]
    lines += [_bounds_table(said)]
    for note in (*forecast.notes, *_varied_note(said.varied)):
        lines += ["", *_wrapped(note)]
    return "\n".join(lines)


def verdict(forecast: Forecast, place: Place) -> str:
    """Whether it fits, with the figures and how that is known."""
    held = fit(forecast, place.target, place.guard)
    how = "proven by a dry run" if held.proven else "an estimate"
    needs = f"needs {words.size(forecast.total)}"
    if held.fits:
        return f"Fits: {needs} and leaves {words.size(held.headroom)} ({how})."
    if held.headroom >= 0:
        return (
            f"Too close: {needs} and leaves {words.size(held.headroom)}, less than the {held.guard:.0%} that "
            f"have to stay free for what a forecast cannot know ({how})."
        )
    return f"Does not fit: {needs}, {words.size(-held.headroom)} too much ({how})."


def fit_text(
    profile: str, place: Place, advice: Advice, fastest: Fix | None, *, command: str
) -> str:
    """The advice for people; `command` is what was asked."""
    lines = [*_wrapped(f"{profile}, on {place.label}"), *_wrapped(verdict(advice.forecast, place))]
    if advice.problem:
        lines += _wrapped(f"Nothing is proven: {advice.problem}")
    for note in advice.forecast.notes:
        lines += _wrapped(note) if note not in advice.problem else []
    if advice.fits:
        lines.append("")
        if fastest is None:
            return "\n".join(
                [*lines, *_wrapped("Nothing faster with the same result fits as well.")]
            )
        quicker = ["It fits already; the fastest that fits:", "", *_fix_lines(1, fastest)]
        return "\n".join([*lines, *quicker, "", f"Write it as a profile: {command} -o FILE"])
    lines += ["", *_wrapped(advice.summary)]
    if not advice.fixes:
        nothing = (
            "Nothing that was tried fits: it takes a smaller model, or a GPU with more memory."
        )
        return "\n".join([*lines, *_wrapped(nothing)])
    for number, fix in enumerate(advice.fixes, 1):
        lines += ["", *_fix_lines(number, fix)]
    return "\n".join([*lines, "", f"Write one as a profile: {command} --fix N -o FILE"])


def estimate_json(said: Estimate) -> dict[str, Any]:
    """The estimate for programs; documented in the command's help."""
    return {
        "profile": said.profile,
        "device": device_json(said.place, said.forecast),
        "rows": {
            "train": said.lengths.train,
            "evaluation": said.lengths.evaluation,
            "measured": said.lengths.measured,
        },
        **forecast_json(said.forecast, said.place),
        "smallest_gpu": said.smallest,
        "largest_batch": _bound_json(said.batch),
        "longest_sequence": _bound_json(said.sequence),
        "problem": said.problem,
    }


def fit_json(
    profile: str, place: Place, advice: Advice, fastest: Fix | None, written: str | None
) -> dict[str, Any]:
    """The advice for programs; documented in the command's help."""
    return {
        "profile": profile,
        "device": device_json(place, advice.forecast),
        "forecast": forecast_json(advice.forecast, place),
        "fits": advice.fits,
        "dominant": advice.dominant,
        "summary": advice.summary,
        "fixes": [_fix_json(fix) for fix in advice.fixes],
        "fastest": None if fastest is None else _fix_json(fastest),
        "tried": advice.tried,
        "problem": advice.problem,
        "written": written,
    }


def device_json(place: Place, forecast: Forecast) -> dict[str, Any]:
    """The device of a forecast."""
    target = place.target
    return {
        "kind": target.kind,
        "name": target.name,
        "here": place.here,
        "total": target.total,
        "free": target.free,
        "limit": target.limit,
        "capacity": fit(forecast, target, place.guard).capacity,
        "guard": place.guard,
    }


def forecast_json(forecast: Forecast, place: Place) -> dict[str, Any]:
    """A forecast and whether it fits."""
    held = fit(forecast, place.target, place.guard)
    return {
        "tier": forecast.tier,
        "fits": held.fits,
        "needed": forecast.needed,
        "context": forecast.context,
        "total": forecast.total,
        "headroom": held.headroom,
        "allocated": forecast.allocated,
        "reserved": forecast.reserved,
        "parts": {name: forecast.parts.get(name, 0) for name in CATEGORIES},
        "moments": {name: forecast.moments[name] for name in MOMENTS if name in forecast.moments},
        "peak": forecast.peak,
        "peak_step": forecast.peak_step,
        "notes": list(forecast.notes),
    }


def _fix_json(fix: Fix) -> dict[str, Any]:
    return {
        "changes": fix.changes,
        "text": fix.text,
        "needed": fix.forecast.needed,
        "headroom": fix.headroom,
        "slowdown": [round(factor, 4) for factor in fix.slowdown],
        "source": fix.source,
        "numerics": fix.numerics,
        "effect": fix.effect,
        "proven": fix.proven,
    }


def _bound_json(bound: Bound) -> dict[str, Any]:
    return {"value": bound.value, "proven": bound.proven, "most": bound.most}


def _model_line(architecture: Architecture, lengths: Lengths) -> str:
    rows = f"the longest row has {lengths.train} tokens"
    if not lengths.measured:
        rows = f"rows of up to {lengths.train} tokens (data.cutoff_len; the data may be shorter)"
    return f"{words.count(architecture.size())} parameters; {rows}"


def _peak(forecast: Forecast) -> str:
    step = f"in step {forecast.peak_step}, " if forecast.peak_step else ""
    return f"{step}{MOMENT_WORDS[forecast.peak]}"


def _parts_table(forecast: Forecast) -> str:
    rows: list[tuple[str, str, str]] = [
        (
            name,
            words.size(forecast.parts.get(name, 0)),
            _share(forecast.parts.get(name, 0), forecast),
        )
        for name in CATEGORIES
        if forecast.parts.get(name, 0)
    ]
    rows.append(("allocated", words.size(forecast.allocated), ""))
    if forecast.needed > forecast.allocated:
        rows.append(("gaps between", words.size(forecast.needed - forecast.allocated), ""))
    rows.append(("the process", words.size(forecast.context), ""))
    rows.append(("needed in all", words.size(forecast.total), ""))
    return _indented(table(("", "memory", "share"), rows, right=(1, 2)))


def _share(part: int, forecast: Forecast) -> str:
    return f"{part / max(1, forecast.allocated):.0%}"


def _moments_table(forecast: Forecast) -> str:
    there = [name for name in MOMENTS if name in forecast.moments]
    sizes = [words.size(forecast.moments[name]) for name in there]
    return _indented(table(there, [sizes], right=range(len(there))))


def _bounds_table(said: Estimate) -> str:
    longest = _bound(said.sequence, "token") if said.sequence.value else f"below {STEP} tokens"
    rows = [
        ("largest batch that fits here", _bound(said.batch, "row"), f"now {said.batch_now}"),
        ("longest rows that fit here", longest, f"now {said.lengths.train}"),
    ]
    if said.place.target.kind == "cuda":
        smallest = f"{said.smallest} GB" if said.smallest else "none: it needs more than 192 GB"
        rows.insert(0, ("smallest GPU that it fits", smallest, ""))
    return "\n".join(line for line in table(("", "", ""), rows).splitlines() if line)


def _bound(bound: Bound, word: str) -> str:
    if not bound.value:
        return "none fits"
    text = words.plural(bound.value, word) + (" or more" if bound.most else "")
    return f"{text}{' (proven)' if bound.proven else ''}"


def _varied_note(varied: tuple[str, ...]) -> tuple[str, ...]:
    if not varied:
        return ()
    return (
        f"The search varies {', '.join(varied)}: this is the profile's own value, and trials may need more.",
    )


def _fix_lines(number: int, fix: Fix) -> list[str]:
    # It brings Textual's colours along, which an estimate, there in milliseconds, has no time for.
    from tui.fix_view import pace

    how = "proven" if fix.proven else "estimate"
    needs = f"needs {words.size(fix.forecast.total)}, {words.size(max(0, fix.headroom))} to spare ({how})"
    speed = f"{pace(fix.slowdown)} per token ({fix.source})"
    told = [f"{needs}; {fix.effect}", speed]
    if fix.numerics == "different":
        told = [needs, speed, f"changes the result: {fix.effect}"]
    head = f"{number}. "
    indent = " " * len(head)
    lines = textwrap.wrap(fix.text, WIDTH, initial_indent=head, subsequent_indent=indent)
    for text in told:
        lines += textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH) or [""]


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ")
