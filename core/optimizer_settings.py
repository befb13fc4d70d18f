"""What the values of train.optim are, as far as it can be told without the libraries that have them: families, packages
and further settings (train.optim_args)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from core.values import Scalar

BITSANDBYTES = frozenset(
    {
        "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "lion_32bit", "lion_8bit", "paged_lion_32bit",
        "paged_lion_8bit",
    }
)  # fmt: skip
"""Optimizers of the bitsandbytes package."""
PROJECTED = frozenset({"galore_adamw", "galore_adamw_8bit", "galore_adafactor", "apollo_adamw"})
"""Optimizers whose states are of a projection of the gradients of whole linear layers."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that has an optimizer, and that is installed apart."""

    module: str
    """What is imported."""
    install: str
    """What is given to pip install."""


_GALORE = Package("galore_torch", "galore-torch")
_APOLLO = Package("apollo_torch", "apollo-torch")
PACKAGES: Mapping[str, Package] = {
    "galore_adamw": _GALORE,
    "galore_adamw_8bit": _GALORE,
    "galore_adafactor": _GALORE,
    "apollo_adamw": _APOLLO,
}


def lacking(optim: str) -> Package | None:
    """The package that an optimizer needs and that is not installed; nothing is imported."""
    package = PACKAGES.get(optim)
    return package if package is not None and find_spec(package.module) is None else None


@dataclass(frozen=True, slots=True)
class Setting:
    """One further setting: what it takes."""

    kind: type[int] | type[float] | type[bool] | type[str]
    low: float = 0.0
    high: float = float("inf")
    choices: tuple[str, ...] = field(default=())

    def read(self, text: str) -> Scalar | None:
        """The value that `text` means; None where it is not allowed."""
        if self.kind is str:
            return text if text in self.choices else None
        if self.kind is bool:
            return {"true": True, "false": False}.get(text.lower())
        try:
            value = int(text) if self.kind is int else float(text)
        except ValueError:
            return None
        return value if self.low <= value <= self.high else None

    def allowed(self) -> str:
        """What is allowed, for people."""
        if self.choices:
            return ", ".join(self.choices)
        if self.kind is bool:
            return "true or false"
        number = "a whole number" if self.kind is int else "a number"
        return f"{number} from {self.low:g}" + (
            "" if self.high == float("inf") else f" to {self.high:g}"
        )


_PROJECTION = {
    "rank": Setting(int, 1, 100_000),
    "update_proj_gap": Setting(int, 1, 10_000_000),
    "scale": Setting(float, 0, 1e6),
    "proj_type": Setting(str, choices=("std", "reverse_std", "right", "left", "full")),
}
_APOLLO_SETTINGS = _PROJECTION | {
    # apollo-torch 1.0.3 knows "full" by name alone.
    "proj_type": Setting(str, choices=("std", "reverse_std", "right", "left")),
    "proj": Setting(str, choices=("random", "svd")),
    "scale_type": Setting(str, choices=("channel", "tensor")),
}
SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "sgd": {
        "momentum": Setting(float, 0, 1),
        "dampening": Setting(float, 0, 1),
        "nesterov": Setting(bool),
    },
    "galore_adamw": _PROJECTION,
    "galore_adamw_8bit": _PROJECTION,
    "galore_adafactor": _PROJECTION,
    "apollo_adamw": _APOLLO_SETTINGS,
}
"""The further settings of each optimizer, by the names that transformers 5.23 takes (trainer_optimizer.py). What all
share (rate, decay, betas) are keys of [train]."""


class OptimArgsError(ValueError):
    """train.optim_args cannot be used. `right` says what could be."""

    def __init__(self, wrong: str, right: str) -> None:
        super().__init__(wrong)
        self.right = right


def optim_args(optim: str, text: str | None) -> dict[str, Scalar]:
    """train.optim_args as values by name.

    Raises:
        OptimArgsError: it is no list of settings, or one that `optim` does not take.
    """
    known = SETTINGS.get(optim, {})
    found: dict[str, Scalar] = {}
    for part in filter(None, (p.strip() for p in (text or "").split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not known:
            raise OptimArgsError(
                f'"{part}" is given, and optim = "{optim}" takes none', "leave it out"
            )
        if not equals or not name:
            raise OptimArgsError(f'"{part}" is no setting', 'as "name=value, name=value"')
        if name not in known:
            raise OptimArgsError(
                f'optim = "{optim}" has no setting {name}', f"it has {', '.join(known)}"
            )
        read = known[name].read(value)
        if read is None:
            raise OptimArgsError(
                f"{name} = {value or 'nothing'} is not allowed", known[name].allowed()
            )
        if name in found:
            raise OptimArgsError(f"{name} is given twice", "leave one of them out")
        found[name] = read
    _check_together(optim, found)
    return found


def _check_together(optim: str, given: Mapping[str, Scalar]) -> None:
    """Raise OptimArgsError where settings do not go together; apollo-torch 1.0.3 finds that out in its first update."""
    if (
        optim == "sgd"
        and given.get("nesterov")
        and not (given.get("momentum") and not given.get("dampening"))
    ):
        raise OptimArgsError(
            "nesterov needs a momentum and no dampening", '"momentum=0.9, nesterov=true"'
        )
    side = given.get("proj_type", "std")
    if optim == "apollo_adamw" and side != "std" and given.get("scale_type", "channel") != "tensor":
        # Its channels are those that the projection of type std leaves whole.
        raise OptimArgsError(
            f"proj_type = {side} needs scale_type = tensor",
            "take proj_type = std, or scale_type = tensor",
        )
