"""The processes that train one trial together: who they are, and what they tell each other.

Each is a *rank* with one GPU in sight, rank 0 being the worker that was started. Tensors on GPUs travel by NCCL, and
what the processes have to agree on (numbers of tokens, requests, sizes) by gloo, which does not wait for a GPU. To
transformers and accelerate every rank looks like a training on one GPU; what is shared is shared here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from core.train.precision import Device

LOCALHOST = "127.0.0.1"
TIMEOUT = timedelta(hours=6)
"""How long a rank waits for the others. They wait while one writes a large model to a slow disk; one that dies does not
have to be waited for, as the trial then ends at once."""


class Place(msgspec.Struct, frozen=True):
    """Which rank a process is, and how it meets the others."""

    index: int
    count: int
    port: int
    """Where rank 0 listens on this machine."""
    listener: int | None = None
    """Rank 0's listening socket, a file descriptor."""
    report: int | None = None
    """The other ranks' pipe to rank 0, a file descriptor."""
    parent: int | None = None
    """The pid of rank 0, for the others."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """All ranks as one of them sees them. What is called a collective has to be called by each of them, in the same
    order; with one rank it does nothing."""

    index: int = 0
    count: int = 1

    @property
    def several(self) -> bool:
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks."""
        return self.index == 0

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Each rank's numbers, as many from each, in the order of ranks. A collective."""
        if not self.several:
            return [list(numbers)]
        import torch
        import torch.distributed as dist

        own = torch.tensor(numbers, dtype=torch.float64)
        each = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(each, own)
        return [[float(number) for number in theirs] for theirs in each]

    def exchange(self, numbers: Sequence[float]) -> list[list[float]]:
        """As `gather`, of which each rank may have another number. A collective."""
        lengths = [int(length) for (length,) in self.gather([len(numbers)])]
        padded = [*numbers, *[0.0] * (max(lengths) - len(numbers))]
        each = self.gather(padded) if padded else [[] for _ in lengths]
        return [theirs[:length] for theirs, length in zip(each, lengths, strict=True)]

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all ranks, the same to the last bit on each. A collective."""
        return [sum(each) for each in zip(*self.gather(numbers), strict=True)]

    def most(self, numbers: Sequence[float]) -> list[float]:
        """The largest over all ranks. A collective."""
        return [max(each) for each in zip(*self.gather(numbers), strict=True)]

    def add(self, tensor: Any) -> None:
        """Put the sum over all ranks in the tensor's place. A collective."""
        if self.several:
            import torch.distributed as dist

            dist.all_reduce(tensor)

    def wait(self) -> None:
        """Go on when every rank has come here. A collective."""
        self.gather([0.0])

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let rank 0 run what is within before the others do. A collective, unless it fails."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = Ranks()
"""The one rank of a trial on one device."""


def join(place: Place, device: Device) -> Ranks:
    """Meet the other ranks; returns when all are there."""
    import torch
    import torch.distributed as dist

    store = dist.TCPStore(
        LOCALHOST,
        place.port,
        place.count,
        is_master=place.index == 0,
        timeout=TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=place.listener,
    )
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        store=store,
        rank=place.index,
        world_size=place.count,
        timeout=TIMEOUT,
    )
    return Ranks(place.index, place.count)


def leave(ranks: Ranks) -> None:
    """Say goodbye after the last collective."""
    if ranks.several:
        import torch.distributed as dist

        dist.destroy_process_group()
