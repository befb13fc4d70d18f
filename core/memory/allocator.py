"""A model of PyTorch's caching allocator on CUDA: what a log of allocations takes from a device, and whether it fits.

It follows c10/cuda/CUDACachingAllocator.cpp of torch 2.13 for one stream and default settings: requests are rounded up
to 512 bytes; those of at most 1 MiB share segments of 2 MiB, those below 10 MiB segments of 20 MiB, larger ones get
a segment of their own in multiples of 2 MiB; the smallest free block that is large enough is taken (the lowest address
among equals) and split where enough is left; a block that is freed joins its free neighbours. When the device gives
no more, all segments that are wholly free go back to it, once, and the request is tried again.

With expandable segments (PYTORCH_ALLOC_CONF=expandable_segments:True) each of the two pools is one range of addresses,
backed by pages of 2 or 20 MiB as far as it is needed; pages that are wholly free go back when memory runs out.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MIB = 2**20
FREE, ALLOC, EMPTY_CACHE = 0, 1, 2
"""The kinds of events. EMPTY_CACHE is torch.cuda.empty_cache()."""

Event = tuple[int, int, int]
"""(kind, id, bytes): an id names an allocation until it is freed; bytes count with ALLOC alone."""

ROUND = 512
SMALL_REQUEST = MIB
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
OWN_SEGMENT = 10 * MIB
"""From this size on a request gets a segment of its own, a multiple of 2 MiB."""
OWN_ROUND = 2 * MIB

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True)
class Usage:
    """What a log of allocations came to, in bytes."""

    peak_allocated: int
    """As torch.cuda.max_memory_allocated has it: blocks handed out, whole where they were not split."""
    peak_reserved: int
    """As torch.cuda.max_memory_reserved has it: taken from the device."""
    retries: int
    """How often free segments had to be given back to get on: each costs time, none costs the run."""


class OutOfMemory(Exception):  # noqa: N818 - named as torch.OutOfMemoryError's cause is
    """A log does not survive at the capacity that was given. `asked` is the segment that the device should have given,
    which is what torch's own message names; sizes are bytes."""

    def __init__(self, event_index: int, asked: int, allocated: int, reserved: int) -> None:
        super().__init__(event_index, asked, allocated, reserved)
        self.event_index = event_index
        self.asked = asked
        self.allocated = allocated
        self.reserved = reserved

    def __str__(self) -> str:
        return (
            f"event {self.event_index} asks for {self.asked / MIB:.0f} MiB; {self.allocated / MIB:.0f} MiB are "
            f"allocated and {self.reserved / MIB:.0f} MiB reserved"
        )


class _Refused(Exception):  # noqa: N818
    """The device gives no more; carries what was asked of it."""

    def __init__(self, asked: int) -> None:
        super().__init__(asked)
        self.asked = asked


class _Block:
    """A part of a segment: handed out, free, or (expandable segments only) without memory behind it."""

    __slots__ = ("address", "free", "mapped", "next", "pool", "prev", "size")

    def __init__(self, address: int, size: int, pool: "_Pool") -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.free = True
        self.mapped = True
        self.prev: _Block | None = None
        self.next: _Block | None = None


_Free = tuple[int, int, _Block]
"""(size, address, block): in this order the best fit is a bisection away. Addresses differ: blocks are not compared."""


class _Pool:
    """The free blocks of one kind of request."""

    __slots__ = ("blocks", "leaves", "page", "start", "unmapped")

    def __init__(self, leaves: int, page: int, start: int) -> None:
        self.leaves = leaves
        """A block is split where at least so much is left over."""
        self.page = page
        self.start = start
        """Where an expandable segment begins."""
        self.blocks: list[_Free] = []
        self.unmapped: list[tuple[int, _Block]] = []
        """Expandable segments only: (address, block) without memory behind them."""

    def add(self, block: _Block) -> None:
        insort(self.blocks, (block.size, block.address, block))

    def remove(self, block: _Block) -> None:
        blocks = self.blocks
        del blocks[bisect_left(blocks, (block.size, block.address))]


class _Segments:
    """The allocator with its segments as cudaMalloc gives them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._live: dict[int, _Block | None] = {}
        self._address = 0
        # "> 1 MiB left" of the large pool is "at least 1 MiB and 512 bytes", all sizes being multiples of 512.
        self._small = _Pool(ROUND, SMALL_SEGMENT, 0)
        self._large = _Pool(MIB + ROUND, LARGE_SEGMENT, 1 << 60)
        self.allocated = self.reserved = 0
        self.peak_allocated = self.peak_reserved = 0
        self.highest = 0
        self.retries = 0

    def allocate(self, name: int, nbytes: int) -> None:
        """Raises _Refused, and ValueError for a name that is taken."""
        live = self._live
        if name in live:
            raise ValueError(f"allocation {name} is there already")
        if nbytes == 0:
            live[name] = None  # torch asks for nothing then
            return
        size = -(-nbytes // ROUND) * ROUND
        pool = self._small if size <= SMALL_REQUEST else self._large
        block = self._take(pool, size) or self._grow_or_retry(pool, size)
        rest = block.size - size
        if rest >= pool.leaves:
            self._split(block, size, rest)
        block.free = False
        live[name] = block
        self.allocated += block.size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated

    def release(self, name: int) -> None:
        """Raises KeyError for a name that is not there."""
        block = self._live.pop(name)
        if block is None:
            return
        self.allocated -= block.size
        block.free = True
        pool = block.pool
        before, after = block.prev, block.next
        if before is not None and before.free and before.mapped:
            pool.remove(before)
            before.size += block.size
            before.next = after
            if after is not None:
                after.prev = before
            block = before
        if after is not None and after.free and after.mapped:
            pool.remove(after)
            block.size += after.size
            block.next = after.next
            if after.next is not None:
                after.next.prev = block
        insort(pool.blocks, (block.size, block.address, block))

    def empty_cache(self) -> None:
        """Give the segments that are wholly free back to the device."""
        for pool in (self._large, self._small):
            kept: list[_Free] = []
            for entry in pool.blocks:
                if entry[2].prev is None and entry[2].next is None:
                    self.reserved -= entry[0]
                else:
                    kept.append(entry)
            pool.blocks = kept

    def _take(self, pool: _Pool, size: int) -> _Block | None:
        """The best fit among the free blocks."""
        blocks = pool.blocks
        place = bisect_left(blocks, (size,))
        return blocks.pop(place)[2] if place < len(blocks) else None

    def _grow_or_retry(self, pool: _Pool, size: int) -> _Block:
        asked = _segment_size(size)
        block = self._grow(pool, size, asked)
        if block is None:
            self.retries += 1
            self.empty_cache()
            block = self._grow(pool, size, asked)
        if block is None:
            raise _Refused(asked)
        if self.reserved > self.peak_reserved:
            self.peak_reserved = self.reserved
        return block

    def _grow(self, pool: _Pool, size: int, asked: int) -> _Block | None:
        """A block of a new segment."""
        if not self._allows(asked):
            return None
        self.reserved += asked
        block = _Block(self._address, asked, pool)
        self._address += asked
        return block

    def _allows(self, more: int) -> bool:
        """Whether the capacity leaves room for `more` bytes."""
        wanted = self.reserved + more
        if wanted > self._capacity:
            return False
        if wanted > self.highest:
            self.highest = wanted
        return True

    def _split(self, block: _Block, size: int, rest: int) -> None:
        """Cut `block` to `size`; what is left of it is free."""
        left = _Block(block.address + size, rest, block.pool)
        left.prev, left.next = block, block.next
        if block.next is not None:
            block.next.prev = left
        block.next = left
        block.size = size
        insort(block.pool.blocks, (rest, left.address, left))


class _ExpandableSegments(_Segments):
    """The allocator with one expandable segment for each pool.

    Both limits apply that torch knows: the whole request has to fit under the per-process fraction before anything is
    mapped, and the pages that are mapped have to be there. The stricter one decides, so that what survives here
    survives under either.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._large.leaves = ROUND
        for pool in (self._small, self._large):
            block = _Block(pool.start, _UNBOUNDED, pool)
            block.mapped = False
            pool.unmapped.append((block.address, block))

    def empty_cache(self) -> None:
        """Unmap the pages that are wholly free."""
        for pool in (self._large, self._small):
            for _, _, block in list(pool.blocks):
                self._unmap(pool, block)

    def _take(self, pool: _Pool, size: int) -> _Block | None:
        """The best fit; a block that can grow counts as large as it can become, and so comes last."""
        blocks = pool.blocks
        place = bisect_left(blocks, (size,))
        if place == len(blocks):
            return None
        while place + 1 < len(blocks) and _reach(blocks[place + 1][2]) < _reach(blocks[place][2]):
            place += 1
        return blocks.pop(place)[2]

    def _grow(self, pool: _Pool, size: int, asked: int) -> _Block | None:
        """Map pages at the lowest address where `size` fits, together with what is free before and between them."""
        if not self._allows(asked):
            return None
        block = self._lowest_room(pool, size)
        if not block.mapped and not self._map(pool, block, min(block.size, size)):
            return None
        while block.size < size:
            gap = block.next
            assert gap is not None  # the last block of a segment is unmapped and as good as endless
            if not self._map(pool, gap, min(size - block.size, gap.size)):
                return None
            block = gap
        pool.remove(block)
        return block

    def _lowest_room(self, pool: _Pool, size: int) -> _Block:
        for _, gap in pool.unmapped:
            start = gap.prev if gap.prev is not None and gap.prev.free else gap
            room = 0
            block: _Block | None = start
            while room < size and block is not None and block.free:
                room += block.size
                block = block.next
            if room >= size:
                return start
        raise AssertionError("an expandable segment has no end")

    def _map(self, pool: _Pool, gap: _Block, size: int) -> bool:
        """Back the first `size` bytes of `gap`, in whole pages, and join what is free beside them."""
        size = -(-size // pool.page) * pool.page
        if not self._allows(size):
            return False
        self.reserved += size
        del pool.unmapped[bisect_left(pool.unmapped, (gap.address,))]
        if size < gap.size:
            rest = _Block(gap.address + size, gap.size - size, pool)
            rest.mapped = False
            _link(gap, rest, gap.next)
            gap.size = size
            insort(pool.unmapped, (rest.address, rest))
        gap.mapped = True
        self._join(pool, gap)
        pool.add(gap)
        return True

    def _unmap(self, pool: _Pool, block: _Block) -> None:
        """Take the memory from the pages that lie wholly inside of a free block."""
        page = pool.page
        begin = pool.start + -(-(block.address - pool.start) // page) * page
        end = pool.start + (block.address + block.size - pool.start) // page * page
        if begin >= end:
            return
        pool.remove(block)
        self.reserved -= end - begin
        before, after = begin - block.address, block.address + block.size - end
        if before:
            head = _Block(block.address, before, pool)
            _link(block.prev, head, block)
            pool.add(head)
        if after:
            tail = _Block(end, after, pool)
            _link(block, tail, block.next)
            pool.add(tail)
        block.address, block.size, block.mapped = begin, end - begin, False
        self._join(pool, block)
        insort(pool.unmapped, (block.address, block))

    def _join(self, pool: _Pool, block: _Block) -> None:
        """Make `block`, which is in no list, one with the neighbours that are as it is: both mapped or both not."""
        before, after = block.prev, block.next
        for other in (before, after):
            if other is None or not other.free or other.mapped != block.mapped:
                continue
            if other.mapped:
                pool.remove(other)
            else:
                del pool.unmapped[bisect_left(pool.unmapped, (other.address,))]
            block.size += other.size
            if other is before:
                block.address = other.address
                _link(other.prev, block, block.next)
            else:
                _link(block.prev, block, other.next)


def replay(
    events: Iterable[Event], *, capacity: int | None = None, expandable: bool = False
) -> Usage:
    """Run a log through the allocator; `capacity` is what it may take from the device, in bytes (None: no limit).

    Raises:
        OutOfMemory: a request cannot be met within the capacity.
        ValueError: the log frees what is not there, or allocates an id twice.
    """
    model = _run(events, _UNBOUNDED if capacity is None else capacity, expandable)
    return Usage(model.peak_allocated, model.peak_reserved, model.retries)


def smallest_capacity(
    events: Sequence[Event], *, expandable: bool = False, resolution: int = 2 * MIB
) -> int:
    """The smallest capacity, in bytes, at which a log goes through; at most `resolution` above it.

    The log does go through at what is returned. A best fit can in principle fail with a little more room than it
    succeeded with; bisection does not see that, and the guard band of a forecast covers it.

    Raises:
        ValueError: the log frees what is not there, or allocates an id twice.
    """
    free = _run(events, _UNBOUNDED, expandable)
    # With a capacity that no request came near, every request is answered as it was.
    enough, too_little = free.highest, free.peak_allocated - 1
    while enough - too_little > resolution:
        middle = (enough + too_little) // 2
        try:
            enough = _run(events, middle, expandable).highest
        except OutOfMemory:
            too_little = middle
    return enough


def _run(events: Iterable[Event], capacity: int, expandable: bool) -> _Segments:
    model = _ExpandableSegments(capacity) if expandable else _Segments(capacity)
    allocate, release = model.allocate, model.release
    index = name = 0
    try:
        for index, (kind, name, nbytes) in enumerate(events):  # noqa: B007 - the handlers read it
            if kind == ALLOC:
                allocate(name, nbytes)
            elif kind == FREE:
                release(name)
            else:
                model.empty_cache()
    except _Refused as refused:
        raise OutOfMemory(index, refused.asked, model.allocated, model.reserved) from None
    except KeyError:
        raise ValueError(f"event {index} frees allocation {name}, which is not there") from None
    return model


def _segment_size(size: int) -> int:
    """What is asked of the device for a request of `size` bytes."""
    if size <= SMALL_REQUEST:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < OWN_SEGMENT else -(-size // OWN_ROUND) * OWN_ROUND


def _reach(block: _Block) -> int:
    """How large a block of an expandable segment can become where it is."""
    after = block.next
    return block.size + (after.size if after is not None and not after.mapped else 0)


def _link(before: _Block | None, block: _Block, after: _Block | None) -> None:
    """Put `block` between two others."""
    block.prev, block.next = before, after
    if before is not None:
        before.next = block
    if after is not None:
        after.prev = block
