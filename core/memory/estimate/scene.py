"""What a pass over a batch works with: the tape, the model's shape, how it computes, and how large the batch is."""

from dataclasses import dataclass

from core.memory.estimate.regime import Regime
from core.memory.estimate.tape import Tape, Tensor, Weight
from core.memory.models.shape import Architecture


@dataclass(slots=True)
class Scene:
    """What a pass over a batch works with."""

    tape: Tape
    shape: Architecture
    regime: Regime
    rows: int
    length: int
    trains: bool
    """Whether the model's own weights train here (full fine-tuning, or a layer that freeze leaves free)."""
    training: bool = True
    """Whether dropout is on."""
    chunk: int = 0
    """Tokens whose loss is computed at once."""

    @property
    def tokens(self) -> int:
        """Of the batch."""
        return self.rows * self.length

    def mask_width(self, given: Tensor) -> int:
        """What dropout keeps of each number: a byte on CUDA, the factor itself on the CPU."""
        return 1 if self.regime.cuda else given.width

    def weight(self, count: int, trains: bool | None = None) -> Weight:
        """A weight of the model's own."""
        learns = self.trains if trains is None else trains
        return Weight(count, self.regime.trained if learns else self.regime.weight, learns)
