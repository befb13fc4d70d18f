"""A look at a profile's data, put together from what its process tells. Pure."""

from dataclasses import dataclass, replace

from core.profile import Profile
from core.study.preview import Began, Counted, Failed, Progress, Shown, Told

EXAMPLES = 12
"""Examples that the dashboard leafs through, besides the rows that findings are about."""


@dataclass(frozen=True, slots=True)
class DataLook:
    """What is known so far."""

    began: Began | None = None
    examples: tuple[Shown, ...] = ()
    progress: Progress | None = None
    counted: Counted | None = None
    problem: str = ""
    """Why there is no more than that."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.counted is not None or bool(self.problem)

    def with_told(self, told: Told) -> "DataLook":
        """The same after one more message."""
        match told:
            case Began():
                return replace(self, began=told)
            case Shown():
                return replace(self, examples=(*self.examples, told))
            case Progress():
                return replace(self, progress=told)
            case Counted():
                return replace(self, counted=told, progress=None)
            case Failed(reason):
                return replace(self, problem=reason, progress=None)


def same_data(one: Profile, other: Profile) -> bool:
    """Whether two profiles show the same data in the same way."""
    return all(a == b for a, b in zip(_shows(one), _shows(other), strict=True))


def _shows(profile: Profile) -> tuple[object, ...]:
    alignment = profile.alignment
    return (
        profile.model,
        profile.data,
        profile.method.stage,
        profile.train.data_seed,
        (alignment.kto_chosen_weight, alignment.kto_rejected_weight),
    )
