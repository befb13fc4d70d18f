"""What may be changed of a profile to change its memory: single moves along independent axes, and their combinations.

Every move is one that the worker can carry out, and says what it does to the result. Whether a move helps is not asked
here: forecasts tell.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Literal

from core.memory.forecast import Lengths, Target
from core.memory.models.shape import Architecture
from core.profile import Profile, ProfileError
from core.values import Scalar

Axis = Literal[
    "batch", "eval_batch", "checkpointing", "attention", "loss", "optimizer", "adapters", "quantization", "precision",
    "method", "offload", "length", "gpus",
]  # fmt: skip
Numerics = Literal["equivalent", "different"]
Sharding = Literal["ddp", "zero1", "fsdp"]

SAME = "the same result up to rounding"
OTHER_DRAWS = f"{SAME} and to what dropout and noise draw, which differs with the batch"
"""What another batch per device does to a run that draws random numbers for each row."""
OTHER_ANSWERS = (
    f"{SAME} and to which answers are drawn, which differ with the batch that draws them"
)
"""What it does to stage ppo."""
MOST_BATCHES = 8
"""Batches per device that are tried: of 256 all halves, down to one row."""
CHUNKS = (1024, 256)
"""Tokens of a loss chunk. Below 256 a product with the head no longer fills a GPU."""
EVERY = (4, 2, 1)
"""Which layers are checkpointed: every n-th."""
SHORTER = (0.75, 0.5, 0.25)
"""Shares of the longest row that it may be cut to."""
_SHARED = {"zero1": "the optimizer's states", "fsdp": "weights, gradients and states"}
"""What GPUs share, by resources.sharding."""
TAKEN = 0.5
"""The slowdown that one would rather accept on the GPU that a trial has than let it take others'."""
SHORTEST = 128
"""Rows are not cut to fewer tokens than this."""


@dataclass(frozen=True, slots=True)
class Move:
    """One change of a profile."""

    axis: Axis
    changes: Mapping[str, Scalar] = field(hash=False)
    """Parameters' names to new values."""
    text: str
    numerics: Numerics = "equivalent"
    effect: str = SAME
    burden: float = 0.0
    """How much slowdown one would rather accept than this change of the result: 0.1 is 10 % of the time."""


def tightening(
    profile: Profile, architecture: Architecture, target: Target, lengths: Lengths
) -> list[tuple[Move, ...]]:
    """The moves that can need less memory, by axis; axes without a move are left out."""
    axes = (
        # More GPUs decide over the batch per device and over what is shared, so that one of them is taken.
        _batches(profile, smaller=True) + _more_sharding(profile) + _more_gpus(profile, target),
        _eval_batches(profile),
        _more_checkpointing(profile, architecture),
        _attention(profile, target),
        _chunked_loss(profile, lengths),
        _optimizers(profile, target),
        _adapters(profile),
        _quantization(profile, target),
        _pure_bf16(profile, target),
        _lora(profile),
        _offload(profile, target),
        _lengths(profile, lengths),
    )
    return [axis for axis in axes if axis]


def quickening(profile: Profile, target: Target) -> list[tuple[Move, ...]]:
    """The moves that can take less time and do not change the result, by axis."""
    axes = (
        _batches(profile, smaller=True) + _batches(profile, smaller=False),
        _less_checkpointing(profile),
        _attention(profile, target),
        _quicker_optimizer(profile, target),
        _no_offload(profile),
    )
    return [axis for axis in axes if axis]


def searched(profile: Profile, move: Move) -> bool:
    """Whether the profile's search varies what the move changes. The batch does not count: the effective batch, which
    is what a search compares, stays."""
    return move.axis not in ("batch", "gpus") and any(
        name in profile.search.space for name in move.changes
    )


def combined(axes: Sequence[Sequence[Move]], most: int) -> Iterator[tuple[Move, ...]]:
    """Every combination of one to `most` moves of different axes."""
    for count in range(1, min(most, len(axes)) + 1):
        for chosen in combinations(axes, count):
            yield from product(*chosen)


def changes_of(moves: Sequence[Move]) -> dict[str, Scalar]:
    """All changes of the moves."""
    return {name: value for move in moves for name, value in move.changes.items()}


def apply(profile: Profile, moves: Sequence[Move]) -> Profile | None:
    """The profile with the moves made; None where they do not go with it."""
    try:
        return profile.with_changes(changes_of(moves))
    except ProfileError:
        return None


def batch_move(profile: Profile, batch: int) -> Move:
    """Another batch per device, a divisor of what one GPU computes of an update; the effective batch stays."""
    train = profile.train
    accumulation = profile.batch_per_gpu() // batch
    text = (
        f"per-device batch {train.per_device_train_batch_size} → {batch}, accumulation "
        f"{train.gradient_accumulation_steps} → {accumulation}; the effective batch stays {profile.effective_batch()}"
    )
    changes = {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
    }
    return Move("batch", changes, text, effect=_same_draws(profile))


def _same_draws(profile: Profile) -> str:
    """What it does to the result that other rows are computed together."""
    if profile.method.stage == "ppo" and profile.train.per_device_eval_batch_size is None:
        return OTHER_ANSWERS
    random = profile.train.neftune_noise_alpha is not None or (
        profile.method.finetuning_type == "lora" and profile.method.lora_dropout > 0
    )
    return OTHER_DRAWS if random else SAME


def divisors(number: int) -> list[int]:
    """The divisors of a number, the largest first."""
    low = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted({*low, *(number // n for n in low)}, reverse=True)


def _batches(profile: Profile, *, smaller: bool) -> tuple[Move, ...]:
    now = profile.train.per_device_train_batch_size
    if smaller:
        sizes = _thinned([n for n in divisors(profile.batch_per_gpu()) if n < now])
    else:
        # A batch that fits is rarely far above the one that somebody chose.
        sizes = [n for n in divisors(profile.batch_per_gpu()) if now < n <= 16 * now][-4:]
    return tuple(batch_move(profile, size) for size in sizes)


def _thinned(sizes: list[int]) -> list[int]:
    """At most so many of the sizes: the largest and then about half of the one before, and the smallest.

    The largest are kept, as the least change that fits is the best one.
    """
    if len(sizes) <= MOST_BATCHES:
        return sizes
    kept = sizes[:1]
    for size in sizes:
        if size <= kept[-1] // 2:
            kept.append(size)
    return [*(size for size in kept[: MOST_BATCHES - 1] if size != sizes[-1]), sizes[-1]]


def _more_sharding(profile: Profile) -> tuple[Move, ...]:
    """More that is shared by the GPUs which the trial has."""
    resources = profile.resources
    if resources.gpus_per_trial == 1:
        return ()
    order: tuple[Sharding, ...] = ("ddp", "zero1", "fsdp")
    return tuple(
        Move(
            "gpus",
            {"sharding": sharding},
            f"the trial's {resources.gpus_per_trial} GPUs share {_SHARED[sharding]} ({sharding})",
        )
        for sharding in order[order.index(resources.sharding) + 1 :]
    )


def _more_gpus(profile: Profile, target: Target) -> tuple[Move, ...]:
    """Twice as many GPUs for the trial, four times as many, and so on, as far as there are some."""
    now, effective = profile.resources.gpus_per_trial, profile.effective_batch()
    counts = []
    count = 2 * now
    while count <= target.gpus and effective % count == 0:
        counts.append(count)
        count *= 2
    return tuple(
        _shared(profile, count, sharding) for count in counts for sharding in ("zero1", "fsdp")
    )


def _shared(profile: Profile, count: int, sharding: Sharding) -> Move:
    each = profile.effective_batch() // count
    most = profile.train.per_device_train_batch_size
    batch = next(size for size in divisors(each) if size <= most)
    return Move(
        "gpus",
        {
            "gpus_per_trial": count,
            "sharding": sharding,
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": each // batch,
        },
        f"{count} GPUs that share {_SHARED[sharding]} ({sharding}), per-device batch {batch}, accumulation "
        f"{each // batch}; the effective batch stays {profile.effective_batch()}",
        effect=f"{_same_draws(profile)}; the trial takes {count} GPUs, which others then do not have",
        burden=TAKEN,
    )


def _eval_batches(profile: Profile) -> tuple[Move, ...]:
    draws = profile.method.stage == "ppo"
    if not (profile.has_validation() or draws):
        return ()
    train = profile.train
    then = "answers are drawn in more batches" if draws else "training stays as it is"
    now = train.per_device_eval_batch_size or train.per_device_train_batch_size
    sizes = sorted({max(1, now // 2), 1}, reverse=True)
    return tuple(
        Move(
            "eval_batch",
            {"per_device_eval_batch_size": size},
            f"per-device eval batch {now} → {size}; {then}",
            effect=OTHER_ANSWERS if draws else SAME,
        )
        for size in sizes
        if size < now
    )


def _more_checkpointing(profile: Profile, architecture: Architecture) -> tuple[Move, ...]:
    train = profile.train
    now = (
        train.gradient_checkpointing_every if train.gradient_checkpointing else architecture.layers
    )
    return tuple(
        _checkpointing(every) for every in EVERY if every < now or architecture.layers == 0
    )


def _checkpointing(every: int) -> Move:
    which = "all layers" if every == 1 else f"every {_ordinal(every)} layer"
    return Move(
        "checkpointing",
        {"gradient_checkpointing": True, "gradient_checkpointing_every": every},
        f"gradient checkpointing of {which}: activations are computed again instead of kept",
    )


def _less_checkpointing(profile: Profile) -> tuple[Move, ...]:
    train = profile.train
    if not train.gradient_checkpointing:
        return ()
    off = Move("checkpointing", {"gradient_checkpointing": False}, "gradient checkpointing off")
    fewer = [_checkpointing(n) for n in EVERY if n > train.gradient_checkpointing_every]
    return (off, *fewer)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third", 4: "fourth"}.get(number, f"{number}th")


def _attention(profile: Profile, target: Target) -> tuple[Move, ...]:
    now = profile.model.attn
    moves = []
    if now == "eager":
        text = "attention by sdpa: the matrix of all pairs of tokens is never held"
        moves.append(Move("attention", {"attn": "sdpa"}, text))
    if now != "flash_attention_2" and _has_flash_attention(profile, target):
        text = "attention by flash_attention_2: padding takes no memory"
        moves.append(Move("attention", {"attn": "flash_attention_2"}, text))
    return tuple(moves)


def _has_flash_attention(profile: Profile, target: Target) -> bool:
    """Whether flash-attn runs: it wants its package, an Ampere GPU or newer, and 16-bit numbers."""
    known = target.capability is not None and target.capability >= (8, 0)
    return target.flash_attention and known and profile.train.precision != "fp32"


def _chunked_loss(profile: Profile, lengths: Lengths) -> tuple[Move, ...]:
    now = profile.train.loss_chunk_tokens
    tokens = min(lengths.train, profile.data.cutoff_len) * profile.train.per_device_train_batch_size
    limit = min(now or tokens, tokens)
    return tuple(
        Move(
            "loss",
            {"loss_chunk_tokens": size},
            f"the loss of {size} tokens at a time: the scores over the vocabulary never exist all at once",
        )
        for size in CHUNKS
        if size < limit
    )


_STATES_8BIT = "AdamW's states are rounded to 8 bits: usually the same loss, not the same run"
_OPTIMIZERS: dict[str, tuple[str, Numerics, str, float]] = {
    "adamw_torch_fused": ("fused AdamW: fewer temporary copies in the update", "equivalent", SAME, 0.0),
    "paged_adamw_32bit": (
        "paged AdamW: its states move to the host's memory when the GPU's runs out",
        "equivalent", SAME, 0.02,
    ),
    "adamw_8bit": ("8-bit AdamW: states of 2 bytes a weight in place of 8", "different", _STATES_8BIT, 0.1),
    "paged_adamw_8bit": (
        "paged 8-bit AdamW: states of 2 bytes a weight that may move to the host's memory",
        "different", _STATES_8BIT, 0.12,
    ),
    "adafactor": (
        "Adafactor: next to no states",
        "different", "another optimizer takes other steps: the learning rate may want another value", 0.3,
    ),
}  # fmt: skip
"""What each value of train.optim means as a move: text, numerics, effect, burden; from most to least memory."""
_LION_8BIT = "Lion's states are rounded to 8 bits: usually the same loss, not the same run"
_LION: dict[str, tuple[str, Numerics, str, float]] = {
    "paged_lion_32bit": (
        "paged Lion: its states move to the host's memory when the GPU's runs out", "equivalent", SAME, 0.02,
    ),
    "lion_8bit": ("8-bit Lion: states of 1 byte a weight in place of 4", "different", _LION_8BIT, 0.1),
    "paged_lion_8bit": (
        "paged 8-bit Lion: states of 1 byte a weight that may move to the host's memory",
        "different", _LION_8BIT, 0.12,
    ),
    "galore_adamw_8bit": ("8-bit GaLore: its states in 8 bits", "different", _STATES_8BIT, 0.1),
}  # fmt: skip
_LESS: dict[str, tuple[str, ...]] = {
    "paged_adamw_32bit": ("paged_adamw_8bit", "adafactor"),
    "lion_32bit": ("paged_lion_32bit", "lion_8bit", "paged_lion_8bit"),
    "lion_8bit": ("paged_lion_8bit",),
    "paged_lion_32bit": ("paged_lion_8bit",),
    "paged_lion_8bit": (),
    "sgd": (),
    "galore_adamw": ("galore_adamw_8bit",),
    "galore_adamw_8bit": (),
    "galore_adafactor": (),
    "apollo_adamw": (),
}
"""What an optimizer leads to where that is not the ones below it in the table: another kind wants another rate."""


def _optimizers(profile: Profile, target: Target) -> tuple[Move, ...]:
    train = profile.train
    if train.offload_optimizer:
        return ()
    gpu = target.kind == "cuda"
    names = list(_OPTIMIZERS)
    if train.optim in _LESS:
        lower = list(_LESS[train.optim])
    else:
        lower = names[names.index(train.optim) + 1 :] if train.optim in names else names
    if gpu and train.optim == "adamw_torch":
        # It is the fused one there.
        lower.remove("adamw_torch_fused")
    moves = [
        Move("optimizer", {"optim": name}, text, numerics, effect, burden)
        for name in lower
        if gpu or not name.startswith("paged")
        for text, numerics, effect, burden in [(_OPTIMIZERS | _LION)[name]]
    ]
    if gpu and train.optim.startswith("adamw_torch"):
        text = "the optimizer's states in the host's memory, updated there"
        moves.append(Move("optimizer", {"offload_optimizer": True}, text, burden=0.02))
    return tuple(moves)


def _quicker_optimizer(profile: Profile, target: Target) -> tuple[Move, ...]:
    train = profile.train
    if train.optim != "adamw_torch" or train.offload_optimizer or target.kind == "cuda":
        return ()
    text, numerics, effect, _ = _OPTIMIZERS["adamw_torch_fused"]
    return (Move("optimizer", {"optim": "adamw_torch_fused"}, text, numerics, effect),)


def _adapters(profile: Profile) -> tuple[Move, ...]:
    method = profile.method
    in_bf16 = method.adapter_precision == "bf16" or profile.train.precision == "pure_bf16"
    if method.finetuning_type != "lora" or in_bf16 or profile.train.precision == "fp16":
        return ()
    effect = "adapters in bf16: small updates get lost in rounding, which can cost some loss"
    text = "adapters, their gradients and states in bf16"
    return (Move("adapters", {"adapter_precision": "bf16"}, text, "different", effect, 0.1),)


def _quantization(profile: Profile, target: Target) -> tuple[Move, ...]:
    """4 and 8 bits. Whether the weights may be quantised depends on the method that a combination ends with."""
    now = profile.model.quantization_bit
    # 8-bit products of bitsandbytes are made for tensor cores; on the CPU they are no training option.
    offered = [
        bits for bits in (8, 4) if bits < (now or 16) and (bits == 4 or target.kind == "cuda")
    ]
    effect = "the frozen weights are rounded: published QLoRA runs come within noise of LoRA, others a little short"
    return tuple(
        Move(
            "quantization",
            {"quantization_bit": bits},
            f"the frozen weights in {bits} bits (bitsandbytes)",
            "different",
            effect,
            0.15,
        )
        for bits in offered
    )


def _pure_bf16(profile: Profile, target: Target) -> tuple[Move, ...]:
    """Trained weights in 16 bits, where they are many: adapters have a parameter of their own."""
    has_bf16 = target.kind == "cpu" or target.capability is None or target.capability >= (8, 0)
    now = profile.train.precision
    if profile.method.finetuning_type == "lora" or not has_bf16 or now not in ("auto", "bf16"):
        return ()
    effect = (
        "weights and states in bf16: small updates get lost in rounding, which can cost some loss"
    )
    text = "the weights that train, their gradients and states in bf16 (pure_bf16)"
    return (Move("precision", {"precision": "pure_bf16"}, text, "different", effect, 0.3),)


def _lora(profile: Profile) -> tuple[Move, ...]:
    if profile.method.finetuning_type != "full":
        return ()
    effect = (
        "only adapters learn: another experiment, which bears about ten times the learning rate"
    )
    text = "LoRA in place of full fine-tuning: no gradients and states of the model's own weights"
    return (Move("method", {"finetuning_type": "lora"}, text, "different", effect, 0.8),)


def _offload(profile: Profile, target: Target) -> tuple[Move, ...]:
    if target.kind != "cuda" or profile.train.offload_activations:
        return ()
    text = "what the backward pass needs waits in the host's memory"
    return (Move("offload", {"offload_activations": True}, text, burden=0.02),)


def _no_offload(profile: Profile) -> tuple[Move, ...]:
    if not profile.train.offload_activations:
        return ()
    return (Move("offload", {"offload_activations": False}, "activations stay on the GPU"),)


def _lengths(profile: Profile, lengths: Lengths) -> tuple[Move, ...]:
    longest = min(profile.data.cutoff_len, max(lengths.train, lengths.evaluation))
    cut = sorted({int(longest * share) // 64 * 64 for share in SHORTER}, reverse=True)
    return tuple(
        Move(
            "length",
            {"cutoff_len": size},
            f"rows cut off at {size} tokens (the longest has {longest})"
            if lengths.measured
            else f"rows cut off at {size} tokens in place of {longest}",
            "different",
            f"rows longer than {size} tokens lose their end",
            0.5,
        )
        for size in cut
        if SHORTEST <= size < longest
    )
