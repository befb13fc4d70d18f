"""A sum of allocations in the order in which autograd makes and frees them, without tensors.

A forward pass is written down as operations on `Tensor`s, which are only counts and widths; what an operation saves for
its backward pass stays alive until `backward` has come by it. The most that was alive at once is the `peak`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from core.memory.allocator import ROUND

Label = Literal["activations", "logits", "weights", "gradients"]
LABELS: tuple[Label, ...] = ("activations", "logits", "weights", "gradients")
OFFLOADED = 2**20
"""Saved tensors of at least so many bytes go to the host, where activations are offloaded."""


class Store:
    """Memory that one or several tensors are in."""

    __slots__ = ("label", "refs", "size")

    def __init__(self, size: int, label: int) -> None:
        self.size = size
        self.label = label
        self.refs = 1


class Tensor:
    """A count of numbers of `width` bytes each; `grad` says whether a gradient flows through it."""

    __slots__ = ("count", "grad", "store", "width")

    def __init__(self, count: int, width: int, grad: bool, store: Store) -> None:
        self.count = count
        self.width = width
        self.grad = grad
        self.store = store


@dataclass(slots=True)
class Weight:
    """A weight matrix or vector as operations see it."""

    count: int
    width: int
    trains: bool
    summed: bool = False
    """Whether its gradient is added to others of the same pass. The sum is a new tensor; one that was cast is added in
    place."""
    cast: Store | None = None
    """Its copy in the type that autocast computes with, as long as autocast keeps it."""


@dataclass(slots=True)
class Step:
    """What the backward pass does for one operation."""

    out: Tensor
    inputs: Sequence[Tensor]
    saved: Sequence[Store]
    scratch: int = 0
    """Bytes that come and go within it, beside the gradients of its inputs."""
    weights: Sequence[Weight] = ()
    """Those that get a gradient; it is computed in the type of `out`."""
    held: Sequence[Store] = ()
    """Owned by the operation itself."""
    shares: bool = False
    """Whether the gradient of the result is the gradient of the inputs, as of a sum."""


@dataclass(slots=True)
class Peak:
    """The most alive at once, in bytes, and what it was, in the order of LABELS."""

    size: int = 0
    parts: list[int] = field(default_factory=lambda: [0] * len(LABELS))


class Tape:
    """Operations as they are done, and what is alive meanwhile. All sizes are relative to where it began."""

    def __init__(
        self, *, recording: bool = True, graph: bool | None = None, offload: bool = False
    ) -> None:
        """`recording` says whether operations save what their backward pass needs, `graph` whether there is a graph at
        all: a checkpointed layer has one and saves nothing. With `offload`, what is saved goes to the host."""
        self.live = 0
        self.parts = [0] * len(LABELS)
        self._top = 0
        self._top_parts = [0] * len(LABELS)
        self.gradients = 0
        """Bytes of gradients that the backward pass left."""
        self.label = 0
        self.recording = recording
        self._graph = recording if graph is None else graph
        self._offload = offload
        self._steps: list[Step] = []
        self._casts: list[Weight] = []

    @property
    def peak(self) -> Peak:
        """The most that was alive at once, since the last `forget_peak`."""
        return Peak(self._top, self._top_parts)

    def forget_peak(self) -> None:
        """Begin anew to look for the most."""
        self._top = 0
        self._top_parts = [0] * len(LABELS)

    # Making and dropping ------------------------------------------------------------------------------------------

    def make(self, count: int, width: int, grad: bool = False) -> Tensor:
        """A new tensor, owned by who asked for it."""
        return Tensor(count, width, grad and self._graph, self._allocate(count * width))

    def scratch(self, size: int) -> None:
        """Bytes that come and go."""
        if self.live + size > self._top:
            self._top = self.live + size
            self._top_parts = self.parts.copy()
            self._top_parts[self.label] += size

    def keep(self, tensor: Tensor) -> Tensor:
        """The same tensor, owned once more."""
        tensor.store.refs += 1
        return tensor

    def drop(self, *tensors: Tensor) -> None:
        """Give up tensors; what nobody owns or has saved is freed."""
        for tensor in tensors:
            self._release(tensor.store)

    def _allocate(self, size: int, label: int | None = None) -> Store:
        size = -(-size // ROUND) * ROUND
        store = Store(size, self.label if label is None else label)
        self.parts[store.label] += size
        self.live += size
        if self.live > self._top:
            self._top = self.live
            self._top_parts = self.parts.copy()
        return store

    def _release(self, store: Store) -> None:
        store.refs -= 1
        if store.refs == 0:
            self.live -= store.size
            self.parts[store.label] -= store.size

    # Operations ---------------------------------------------------------------------------------------------------

    def record(self, step: Step) -> None:
        """Note an operation whose result is there; what it saves stays."""
        if not (step.out.grad and self.recording):
            return
        for store in step.saved:
            if not self._goes(store):
                store.refs += 1
        self._steps.append(step)

    def apply(
        self,
        inputs: Sequence[Tensor],
        count: int,
        width: int,
        *,
        saved: Sequence[Tensor] = (),
        held: Sequence[Tensor] = (),
        scratch: int = 0,
        backward_scratch: int = 0,
    ) -> Tensor:
        """An operation on tensors alone; its inputs stay owned. `held` is kept without autograd knowing: neither
        checkpoints nor offloading see it."""
        out = self.make(count, width, any(t.grad for t in inputs))
        if scratch:
            self.scratch(scratch)
        flowing = [t for t in inputs if t.grad]
        keeps = [t.store for t in held] if out.grad else []
        for store in keeps:
            store.refs += 1
        self.record(Step(out, flowing, [t.store for t in saved], backward_scratch, held=keeps))
        return out

    def cast(self, tensor: Tensor, width: int) -> Tensor:
        """The tensor in another type: itself where it has that type."""
        if tensor.width == width:
            return self.keep(tensor)
        return self.apply((tensor,), tensor.count, width)

    def add(self, one: Tensor, other: Tensor) -> Tensor:
        """A sum, in the wider type of the two. Both are given up."""
        width = max(one.width, other.width)
        out = self.make(one.count, width, one.grad or other.grad)
        flowing = [t for t in (one, other) if t.grad]
        self.record(Step(out, flowing, (), shares=True))
        self.drop(one, other)
        return out

    def lowered(self, weight: Weight, width: int) -> Store | None:
        """The copy of a weight that autocast computes with; None where the weight itself will do.

        Copies of weights that train are kept until the forward pass is over; others live as long as they are used.
        """
        if weight.width == width:
            return None
        if weight.trains and weight.cast is not None:
            weight.cast.refs += 1
            return weight.cast
        store = self._allocate(weight.count * width, label=2)
        if weight.trains:
            store.refs += 1
            weight.cast = store
            self._casts.append(weight)
        return store

    def release(self, store: Store | None) -> None:
        """Give up what `lowered` gave."""
        if store is not None:
            self._release(store)

    def leave_autocast(self) -> int:
        """Autocast forgets its copies of weights; returns how many bytes it held."""
        held = 0
        for weight in self._casts:
            if weight.cast is not None:
                held += weight.cast.size
                self._release(weight.cast)
                weight.cast = None
        self._casts.clear()
        return held

    # Backward -----------------------------------------------------------------------------------------------------

    def backward(self, out: Tensor, *, accumulated: bool, given: Store | None = None) -> None:
        """Go back from `out`, whose gradient comes from outside; `accumulated` says that gradients of weights are
        there already, so that new ones are added to them and go."""
        grads: dict[int, Store] = {id(out): given or self._allocate(out.count * out.width)}
        while self._steps:
            step = self._steps.pop()
            grad = grads.pop(id(step.out), None)
            if grad is not None:
                self._step(step, grad, grads, accumulated)
                self._release(grad)
            for store in step.saved:
                if not self._goes(store):
                    self._release(store)
            for store in step.held:
                self._release(store)
        for store in grads.values():
            self._release(store)

    def _step(self, step: Step, grad: Store, grads: dict[int, Store], accumulated: bool) -> None:
        back = [self._allocate(s.size, s.label) for s in step.saved if self._goes(s)]
        new = [self._input_gradient(step, tensor, grad) for tensor in step.inputs]
        if step.scratch:
            self.scratch(step.scratch)
        for tensor, gradient in zip(step.inputs, new, strict=True):
            self._accumulate(grads, tensor, gradient)
        for weight in step.weights:
            self._weight_gradient(weight, step.out.width, accumulated)
        for store in back:
            self._release(store)

    def _input_gradient(self, step: Step, tensor: Tensor, grad: Store) -> Store:
        if step.shares and tensor.width == step.out.width:
            grad.refs += 1
            return grad
        return self._allocate(tensor.count * tensor.width, tensor.store.label)

    def _accumulate(self, grads: dict[int, Store], tensor: Tensor, new: Store) -> None:
        """Add a gradient to one that is there: in place where nothing else uses it."""
        old = grads.get(id(tensor))
        if old is None:
            grads[id(tensor)] = new
            return
        if old.refs > 1:
            total = self._allocate(tensor.count * tensor.width, tensor.store.label)
            grads[id(tensor)] = total
            self._release(old)
        self._release(new)

    def _weight_gradient(self, weight: Weight, width: int, accumulated: bool) -> None:
        first = self._allocate(weight.count * min(width, weight.width), label=3)
        final = first
        if width < weight.width:
            final = self._allocate(weight.count * weight.width, label=3)
            self._release(first)
        if weight.summed and final is first:
            self.scratch(final.size)
        if accumulated:
            self._release(final)
        else:
            self.gradients += final.size

    def _goes(self, store: Store) -> bool:
        return self._offload and store.size >= OFFLOADED
