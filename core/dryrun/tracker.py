"""A log of every allocation and free of a run, in order, whether its tensors are real or fake.

A tensor's memory is that of its storage: views share it, and it is freed when the last reference to it goes. So each
storage that an operation returns is watched with a weak reference. What CUDA's kernels allocate and free within one
operation never shows there; `transients` says what each of them takes.
"""

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.memory.allocator import ALLOC, FREE, Event
from core.memory.forecast import Category, Moment

_DEVICE = torch.ops.prim.device.default
"""What is asked most by far: where a fake tensor is."""

Transients = Mapping[Any, Callable[..., list[int]]]
"""Operation → what its kernel takes besides its results, in bytes, given the operation's arguments."""


class Tracker(TorchDispatchMode):  # type: ignore[misc]
    """Logs what operations allocate while it is entered, and what is freed whenever that happens."""

    def __init__(
        self,
        transients: Transients | None = None,
        vocabulary: int | Collection[int] = 0,
        rounding: int = 1,
        run: Callable[[Any, Any, Any], Any] | None = None,
    ) -> None:
        """`vocabulary` is how wide logits are, or which widths they have; sizes are rounded up to a multiple of
        `rounding` bytes; `run` is what carries an operation out, given it, its arguments and its named arguments."""
        super().__init__()
        self._run = run or _call
        self.events: list[Event] = []
        self.categories: dict[int, Category] = {}
        """By the id of an allocation."""
        self.marks: list[tuple[int, Moment, int]] = []
        """(index of the first event, moment, update): where the parts of the run begin."""
        self._moment: Moment = "load"
        self._category: Category = "weights"
        self._live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self.next = 1
        """The next allocation's id."""
        self._rounding = rounding
        self._vocabulary = {vocabulary} if isinstance(vocabulary, int) else set(vocabulary)
        self._transients = transients or {}

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation is _DEVICE:
            known = getattr(args[0], "fake_device", None)
            return operation(*args) if known is None else known
        named = kwargs or {}
        found = self._transients.get(operation)
        inner: list[int] = []
        if found is not None:
            inner = [self.allocate(size, "workspace") for size in found(*args, **named) if size]
        result = self._run(operation, args, named)
        if isinstance(result, Tensor):
            self._see(result)
        elif isinstance(result, list | tuple):
            for item in result:
                if isinstance(item, Tensor):
                    self._see(item)
                elif isinstance(item, list | tuple):
                    for each in item:
                        if isinstance(each, Tensor):
                            self._see(each)
        for number in inner:
            self.free(number)
        return result

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether PyTorch's compiler has to be told to keep out: it is never on here, and telling it takes time."""
        return False

    def begin(self, moment: Moment, update: int) -> None:
        """What follows belongs to `moment` of `update`."""
        self._moment = moment
        self._category = _DEFAULT[moment]
        self.marks.append((len(self.events), moment, update))

    def adopt(self, tensors: Iterable[Any], category: Category) -> None:
        """Log tensors that were there before as allocated now, or name what those hold that are known."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            known = self._live.get(storage._cdata)
            if known is None:
                self._add(storage, category)
            else:
                self.categories[known[0]] = category

    def allocate(self, size: int, category: Category) -> int:
        """Log memory that no tensor stands for, until `free` is called with what is returned."""
        number = self.next
        self.next += 1
        rounding = self._rounding
        self.events.append((ALLOC, number, -(-size // rounding) * rounding))
        self.categories[number] = category
        return number

    def free(self, number: int) -> None:
        """Log that what `allocate` returned is free again."""
        self.events.append((FREE, number, 0))

    def _see(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._live:
            return
        category = self._category
        if category == "activations" and tensor.dim() > 1 and tensor.shape[-1] in self._vocabulary:
            category = "logits"
        self._add(storage, category)

    def _add(self, storage: Any, category: Category) -> None:
        key = storage._cdata
        size = storage.nbytes()
        live, events = self._live, self.events
        if not size:
            return
        number = self.allocate(size, category)

        def gone(_: Any) -> None:
            live.pop(key, None)
            events.append((FREE, number, 0))

        live[key] = (number, weakref.ref(storage, gone))


def _call(operation: Any, args: Any, kwargs: Any) -> Any:
    return operation(*args, **kwargs)


_DEFAULT: dict[Moment, Category] = {
    "load": "weights",
    "forward": "activations",
    "backward": "activations",
    "optimizer": "workspace",
    "eval": "activations",
    "save": "workspace",
}
"""What an allocation is until it is known better (`Tracker.adopt`)."""
