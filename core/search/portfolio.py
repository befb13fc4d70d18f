"""Settings that are known to be good, ranked by stage, method and size of model; and what of them lies in a space.

The learning rate decides nearly everything, so that a list is first of all a list of rates. What is said of other
parameters is what most published runs agree on; it counts only where a parameter is searched.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product, zip_longest

from core.profile import Profile
from core.search.space import Axis, Space, key_of
from core.values import Scalar

NEAR = 2.0
"""A list's value, or the end of a range, stands for a known-good number that is no further away than by this factor."""

SMALL, LARGE = 4.5e9, 13e9
"""A model with fewer parameters than the one counts as small, one with more than the other as large."""

_SWEEP = "548 published LoRA runs of 35 models (Tinker cookbook's SFT sweep, batch 128)"
_QLORA = "QLoRA (Dettmers et al. 2023): 2e-4 up to 13B, 1e-4 above"
_FULL = "the usual range of full fine-tuning, 2e-6 to 5e-5, from its middle outwards"
_FREEZE = "between full fine-tuning and LoRA: fewer weights bear a higher rate; no published sweep"
_DPO = "DPO with adapters, 5e-7 to 5e-5: 5e-6 is the usual start"
_DPO_FULL = "DPO with all weights, 1e-7 to 2e-6: Zephyr and DPO's own code begin with 5e-7"
_DPO_QLORA = "Zephyr 7B with QLoRA (Hugging Face's alignment handbook): 5e-6"
_DPO_FREEZE = "between DPO with all weights and with adapters; no published sweep"
_KTO = "KTO with adapters, as DPO with them; no published sweep"
_KTO_FULL = (
    "KTO with all weights, 5e-7 to 5e-6: TRL advises not to leave that range, and 1e-6 at β = 0.1"
)
_KTO_FREEZE = "between KTO with all weights and with adapters; no published sweep"
_REWARD = "reward models with adapters, 2e-5 to 5e-4"
_REWARD_FULL = (
    "reward models with all weights, 5e-6 to 2e-5: InstructGPT (Ouyang et al. 2022) took 9e-6"
)
_REWARD_FREEZE = "between reward models with all weights and with adapters; no published sweep"
_PPO_FREEZE = "PPO, 1e-6 to 2e-5, between all weights and adapters; no published sweep"
_PPO = "PPO, 1e-6 to 2e-5: TRL's PPO trainer began with 1e-5, its examples with 1.41e-5; lower is safer"

_RATES: dict[tuple[str, str], tuple[tuple[float, ...], str]] = {
    ("sft", "lora small"): ((1e-3, 3e-4, 1e-4), _SWEEP),
    ("sft", "lora"): ((3e-4, 1e-3, 1e-4), _SWEEP),
    ("sft", "lora large"): ((3e-4, 1e-4, 5e-4), _SWEEP),
    ("sft", "qlora"): ((2e-4, 4e-4, 1e-4), _QLORA),
    ("sft", "qlora large"): ((1e-4, 2e-4, 5e-5), _QLORA),
    ("sft", "freeze"): ((5e-5, 2e-5, 1e-4), _FREEZE),
    ("sft", "full"): ((1e-5, 2e-5, 5e-6), _FULL),
    ("pt", "lora"): ((3e-4, 1e-4, 5e-4), _SWEEP),
    ("pt", "qlora"): ((2e-4, 1e-4, 4e-4), _QLORA),
    ("pt", "freeze"): ((5e-5, 2e-5, 1e-4), _FREEZE),
    ("pt", "full"): ((1e-5, 3e-5, 5e-6), _FULL),
    ("rm", "lora"): ((1e-4, 3e-4, 3e-5), _REWARD),
    ("rm", "freeze"): ((3e-5, 1e-5, 1e-4), _REWARD_FREEZE),
    ("rm", "full"): ((1e-5, 5e-6, 2e-5), _REWARD_FULL),
    ("dpo", "lora"): ((5e-6, 2e-5, 1e-6), _DPO),
    ("dpo", "qlora"): ((5e-6, 2e-5, 1e-6), _DPO_QLORA),
    ("dpo", "freeze"): ((2e-6, 5e-6, 5e-7), _DPO_FREEZE),
    ("dpo", "full"): ((5e-7, 1e-6, 2e-7), _DPO_FULL),
    ("kto", "lora"): ((5e-6, 2e-5, 1e-6), _KTO),
    ("kto", "freeze"): ((2e-6, 5e-6, 5e-7), _KTO_FREEZE),
    ("kto", "full"): ((1e-6, 5e-7, 5e-6), _KTO_FULL),
    ("ppo", "lora"): ((1e-5, 5e-6, 2e-6), _PPO),
    ("ppo", "freeze"): ((3e-6, 1e-6, 1e-5), _PPO_FREEZE),
    ("ppo", "full"): ((1e-6, 3e-6, 5e-6), _PPO),
}
"""The ranked rates of a stage and method, with where they come from.

In the sweep's lists each rate is the one that lowers the mean regret most beside those before it; the order hardly
changes when any one model is left out (`python -m bench rates`). A model above 13B gets no rate above 5e-4: what
little 1e-3 wins at high ranks it loses where it diverges.
"""

_BESIDE: dict[str, Scalar] = {
    "lora_rank": 16,
    "lora_dropout": 0.0,
    "warmup_ratio": 0.05,
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
}
"""What most published runs agree on beside the rate."""


@dataclass(frozen=True, slots=True)
class KnownGood:
    """Settings that were good elsewhere, and where."""

    values: Mapping[str, Scalar]
    source: str


def known_good(profile: Profile, parameters: float | None = None) -> list[KnownGood]:
    """The ranked list for a profile's stage, method and size of model; empty where nothing is known.

    `parameters`: how many the model has; where not given, the model's name tells, else it counts as of middle size.
    """
    size = parameters if parameters is not None else size_in_name(profile.model.model_name_or_path)
    method: str = profile.method.finetuning_type
    if method == "lora" and profile.model.quantization_bit is not None:
        method = "qlora"
    rates, source = _ranked(profile.method.stage, method, size)
    return [KnownGood({**_BESIDE, "learning_rate": rate}, source) for rate in rates]


def _ranked(stage: str, method: str, size: float | None) -> tuple[tuple[float, ...], str]:
    names = [method]
    if size is not None and (size < SMALL or size > LARGE):
        names.insert(0, f"{method} {'small' if size < SMALL else 'large'}")
    # Adapters on a quantised model learn as others do where nothing else is known.
    names += ["lora"] if method == "qlora" else []
    return next((_RATES[stage, n] for n in names if (stage, n) in _RATES), ((), ""))


def size_in_name(name: str) -> float | None:
    """How many parameters a model's name or path says it has ("Qwen2.5-7B", "gpt2-135M", "Mixtral-8x7B"), or None."""
    for part in reversed(name.split("/")):
        sizes = [
            int(times or 1) * float(count) * (1e9 if unit in "Bb" else 1e6)
            for times, count, unit in _SIZE.findall(part)
        ]
        if sizes:
            return max(sizes)
    return None


_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z0-9])")


def points(space: Space, parameters: float | None = None) -> Iterator[dict[str, Scalar]]:
    """The combinations of a space that its known-good settings stand for, ranked; each once, all of them can run.

    What the list says nothing of is as the profile has it, or as near as the space allows. Settings of which a value is
    too far from the space are passed over.
    """
    known = set()
    for good in _of_all_methods(space, parameters):
        point = _inside(space, good)
        if point is None:
            continue
        active = space.active(point)
        key = key_of(active)
        if key not in known and space.obstacle(active) is None:
            known.add(key)
            yield active


def _of_all_methods(space: Space, parameters: float | None) -> Iterator[KnownGood]:
    """The lists of all methods that the space holds, the first of each before the second of any."""
    methods = [axis for axis in space.axes if axis.name in ("finetuning_type", "quantization_bit")]
    lists = []
    for values in product(*(axis.values or () for axis in methods)):
        chosen = {axis.name: value for axis, value in zip(methods, values, strict=True)}
        if space.obstacle(space.active({**_anything(space), **chosen})) is None:
            own = _with_method(space.profile, space.active(chosen))
            lists.append([(good, chosen) for good in known_good(own, parameters)])
    for rank in zip_longest(*lists):
        for entry in rank:
            if entry is not None:
                good, chosen = entry
                yield KnownGood({**good.values, **chosen}, good.source)


def _anything(space: Space) -> dict[str, Scalar]:
    return {axis.name: _as_profile(space, axis) for axis in space.axes}


def _with_method(profile: Profile, chosen: Mapping[str, Scalar]) -> Profile:
    model = {k: v for k, v in chosen.items() if k == "quantization_bit"}
    method = {k: v for k, v in chosen.items() if k == "finetuning_type"}
    return replace(
        profile,
        model=profile.model.model_copy(update=model),
        method=profile.method.model_copy(update=method),
    )


def _inside(space: Space, good: KnownGood) -> dict[str, Scalar] | None:
    if not any(axis.name in good.values for axis in space.axes):
        return None
    point: dict[str, Scalar] = {}
    for axis in space.axes:
        value = good.values.get(axis.name)
        placed = None if value is None else near(axis, value)
        if placed is None and axis.name == "learning_rate":
            return None
        point[axis.name] = placed if placed is not None else _as_profile(space, axis)
    return point


def near(axis: Axis, value: Scalar) -> Scalar | None:
    """The value of an axis that is nearest to `value` and no further away than by the factor `NEAR`, or None."""
    if axis.values is not None and (value in axis.values or isinstance(value, bool | str)):
        return value if value in axis.values else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not axis.ordered:
        return None
    if axis.low is not None and axis.high is not None:
        placed: float = min(max(value, axis.low), axis.high)
    else:
        numbers = [v for v in axis.values or () if isinstance(v, int | float)]
        placed = min(numbers, key=lambda v: _distance(v, value))
    return axis.tidy(placed) if _distance(placed, value) <= math.log(NEAR) + 1e-9 else None


def _distance(one: float, other: float) -> float:
    """How far two numbers are apart: the logarithm of their ratio, endless where one is zero and the other is not."""
    if one == other:
        return 0.0
    return abs(math.log(one / other)) if one > 0 and other > 0 else math.inf


def _as_profile(space: Space, axis: Axis) -> Scalar:
    """The profile's own value where the axis has it, else the nearest, else one from the middle."""
    own = space.profile.value(axis.name)
    placed = None if own is None else near(axis, own)
    return axis.draw(0.5) if placed is None else placed
