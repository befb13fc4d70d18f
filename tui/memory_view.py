"""What the memory forecast of a draft looks like against each device: frozen lines, worked out by pure functions.

Sizes are bytes. A line holds everything that its picture says; how it is drawn is the widget's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Literal

from core.catalogue import find
from core.memory.forecast import (
    CATEGORIES,
    GUARD_UNKNOWN,
    Category,
    Forecast,
    Moment,
    Target,
    fit,
)
from core.params import Range
from core.profile import Profile
from tui import words

Part = Category | Literal["CUDA", "process", "gaps"]
"""What a segment of the bar stands for: a category, what the process holds besides the allocator's tensors (CUDA's
context; on the CPU the process itself), or what lies between tensors and cannot be given to one."""
Verdict = Literal["fits", "tight", "over"]
"""`tight`: it goes through on paper, but leaves less than the guard band."""

MOMENT_WORDS: dict[Moment, str] = {
    "load": "while loading",
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "optimizer": "in the optimizer's step",
    "eval": "while evaluating",
    "save": "while saving",
}
MOST_TRIALS = 8
"""Combinations of a search that are forecast while somebody types."""
_SAME_FREE = words.GIB // 4
"""GPUs of one kind whose free memory differs by less share a line."""
MEMORY_KEYS = frozenset(
    {
        "per_device_train_batch_size", "per_device_eval_batch_size", "cutoff_len", "lora_rank", "lora_target",
        "use_dora", "finetuning_type", "quantization_bit", "precision", "optim", "attn", "packing",
        "gradient_checkpointing", "gradient_checkpointing_every", "loss_chunk_tokens", "adapter_precision",
        "offload_optimizer", "offload_activations", "freeze_trainable_layers", "gradient_accumulation_steps",
    }
)  # fmt: skip
"""What a run's memory depends on, of what a search can vary."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a trial of the draft may be given."""

    label: str
    """As it is called in a line: `GPU 0`, `CPU`."""
    target: Target
    guard: float = GUARD_UNKNOWN
    """The share of a forecast that has to stay free on it."""
    busy: bool = False
    """Whether somebody else uses it, so that no trial is started on it now."""

    @property
    def name(self) -> str:
        """The device's name without its maker's; "" where it says nothing more than the label."""
        if self.target.kind == "cpu":
            return ""
        return self.target.name.removeprefix("NVIDIA ").strip()


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """A forecast against one device."""

    label: str
    name: str
    segments: tuple[tuple[Part, int], ...]
    """In the order of the bar; sums to `total`."""
    total: int
    """What the process needs, all included."""
    room: int
    """What the process may hold there."""
    verdict: Verdict
    left: int
    """What stays free; negative: what is missing."""
    proven: bool
    dominant: Category
    share: float
    """The part of the tensors at the peak that `dominant` holds, 0 … 1."""
    moment: Moment
    step: int
    busy: bool = False
    rough: bool = False
    """Whether no more is known of the model than about how large it is."""

    @property
    def numbers(self) -> str:
        """`17.2 of 79.1 GiB`."""
        return f"{gib(self.total)} of {gib(self.room)} GiB"

    @property
    def ruling(self) -> str:
        """Whether it fits, in words."""
        if self.verdict == "fits":
            return "fits"
        if self.verdict == "tight":
            return f"too close, {gib(self.left)} GiB left"
        return f"{gib(max(-self.left, words.GIB // 20))} GiB too much"

    @property
    def source(self) -> str:
        """How that is known."""
        if self.proven:
            return "proven"
        return "rough estimate" if self.rough else "estimate"

    @property
    def why(self) -> str:
        """What holds the most."""
        return f"{self.dominant} {self.share:.0%}"

    @property
    def when(self) -> str:
        """The moment of the peak."""
        where = f", step {self.step}" if self.step > 1 else ""
        return f"peak {MOMENT_WORDS[self.moment]}{where}"


@dataclass(frozen=True, slots=True)
class MemoryView:
    """All lines, the one that counts most first; or why there are none."""

    lines: tuple[MemoryLine, ...] = ()
    problem: str = ""
    """Why nothing is forecast."""
    searched: bool = False
    """Whether it is the forecast of the largest of several trials."""
    stale: str = ""
    """Why the draft, which says something else by now, is not forecast; empty where it is."""
    proving: bool = False
    """A dry run is under way."""

    @property
    def counts(self) -> MemoryLine | None:
        """The line that decides."""
        return self.lines[0] if self.lines else None


def gib(size: int) -> str:
    """Bytes in GiB with one decimal, two below a tenth, none from a hundred on."""
    value = size / words.GIB
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 0.095 or not size else f"{value:.2f}"


def memory_line(forecast: Forecast, device: Device) -> MemoryLine:
    """A forecast held against a device."""
    found = fit(forecast, device.target, device.guard)
    verdict: Verdict = "fits" if found.fits else "tight" if found.headroom >= 0 else "over"
    dominant = forecast.dominant
    return MemoryLine(
        label=device.label,
        name=device.name,
        segments=segments(forecast, device.target.kind),
        total=forecast.total,
        room=found.capacity + forecast.context,
        verdict=verdict,
        left=found.headroom,
        proven=found.proven,
        dominant=dominant,
        share=forecast.parts.get(dominant, 0) / max(1, forecast.allocated),
        moment=forecast.peak,
        step=forecast.peak_step,
        busy=device.busy,
    )


def segments(forecast: Forecast, kind: Literal["cuda", "cpu"]) -> tuple[tuple[Part, int], ...]:
    """What the bar is made of; parts without memory are left out."""
    besides: Part = "CUDA" if kind == "cuda" else "process"
    parts: list[tuple[Part, int]] = [(besides, forecast.context)]
    parts += [(category, forecast.parts.get(category, 0)) for category in CATEGORIES]
    parts.append(("gaps", forecast.needed - forecast.allocated))
    return tuple((part, size) for part, size in parts if size > 0)


def in_order(lines: Sequence[MemoryLine]) -> tuple[MemoryLine, ...]:
    """The lines with the one that counts most first.

    That is the tightest of the devices that a trial may be started on; those in use by others come after them, the
    roomiest first.
    """
    free = sorted((line for line in lines if not line.busy), key=lambda line: line.left)
    busy = sorted((line for line in lines if line.busy), key=lambda line: -line.left)
    return (*free, *busy)


def grouped(devices: Sequence[Device]) -> tuple[Device, ...]:
    """GPUs that are alike as one device, `GPU 0-3`: the one with the least free memory speaks for them."""
    groups: list[list[Device]] = []
    for device in devices:
        group = next((g for g in groups if _alike(g[0], device)), None)
        if group is None:
            groups.append([device])
        else:
            group.append(device)
    return tuple(_spokesman(group) for group in groups)


def _alike(one: Device, other: Device) -> bool:
    mine, theirs = one.target, other.target
    same = (mine.kind, mine.name, mine.total, mine.capability, one.busy)
    return (
        mine.kind == "cuda"
        and same == (theirs.kind, theirs.name, theirs.total, theirs.capability, other.busy)
        and abs(mine.free - theirs.free) < _SAME_FREE
    )


def _spokesman(group: Sequence[Device]) -> Device:
    tightest = min(group, key=lambda device: device.target.free)
    if len(group) == 1:
        return tightest
    numbers = [device.label.removeprefix("GPU ") for device in group]
    in_a_row = all(n.isdigit() for n in numbers) and len(numbers) > 2
    if in_a_row and int(numbers[-1]) - int(numbers[0]) == len(numbers) - 1:
        return replace(tightest, label=f"GPU {numbers[0]}-{numbers[-1]}")
    return replace(tightest, label=f"GPU {','.join(numbers)}")


def largest_trials(profile: Profile) -> tuple[Profile, ...]:
    """The trainings of a search among which the one is that needs the most memory; without a search the profile.

    A number is taken at its upper end, of a parameter with few values that memory depends on each is tried.
    """
    ends: dict[str, list[object]] = {}
    for name, entry in profile.search.space.items():
        if isinstance(entry, Range):
            ends[name] = [entry.high]
        elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in entry):
            ends[name] = [max(v for v in entry if isinstance(v, int | float))]
        elif name in MEMORY_KEYS:
            ends[name] = list(entry)
    training = profile.as_training()
    corners = islice(product(*ends.values()), MOST_TRIALS)
    return tuple(_with(training, dict(zip(ends, corner, strict=True))) for corner in corners)


def _with(profile: Profile, values: dict[str, object]) -> Profile:
    """A profile with values that were checked when the search was."""
    tables: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        parameter = find(name)
        whole = parameter.kind == "int" and isinstance(value, float)
        tables.setdefault(parameter.table, {})[parameter.name] = (
            int(value) if whole and isinstance(value, float) else value
        )
    copies = {
        table: getattr(profile, table).model_copy(update=changes)
        for table, changes in tables.items()
    }
    return replace(profile, **copies)
