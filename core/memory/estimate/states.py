"""What stays: weights as they are held, the numbers that train, their gradients and the optimizer's states. Bytes."""

import msgspec

from core.memory.allocator import ROUND
from core.memory.estimate.regime import FEED_FORWARD, Regime, names
from core.memory.models.shape import Architecture, Linear
from core.optimizer_settings import PROJECTED, OptimArgsError, optim_args
from core.params import MethodTable, TrainTable
from core.values import Scalar

SCALED = 64
"""Weights of 4 bits that share a scale (bitsandbytes)."""
NESTED = 256
"""Scales that share one, with double quantisation."""
BLOCK = 256
"""Numbers of an 8-bit optimizer state that share a scale (bitsandbytes)."""
LEAST_8BIT = 4096
"""Weights of fewer numbers keep states of 32 bits (bitsandbytes)."""
LEAST_PAGED = 100_000
"""States of fewer numbers are not paged (bitsandbytes)."""

EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings"})
"""What models call their embeddings."""
HEADS = frozenset({"lm_head", "embed_out"})
"""And their output head."""
RANK = 128
"""galore's and apollo's rank where train.optim_args has none."""


class Group(msgspec.Struct, frozen=True):
    """Equal weights that train."""

    rows: int
    columns: int
    """1 for vectors."""
    many: int
    embedding: bool = False

    @property
    def count(self) -> int:
        """Numbers of one of them."""
        return self.rows * self.columns


def rounded(size: float) -> int:
    """As the allocator has it."""
    return -(-int(size) // ROUND) * ROUND


def trained_groups(shape: Architecture, regime: Regime, method: MethodTable) -> tuple[Group, ...]:
    """All weights that train."""
    if regime.method == "lora":
        return (*adapter_groups(shape, regime), *_whole_groups(shape, method))
    if regime.method == "full":
        return (*_layer_groups(shape, shape.layers, regime), *_outside_groups(shape, None))
    layers = min(abs(method.freeze_trainable_layers), shape.layers)
    extra = method.freeze_extra_modules
    outside = _outside_groups(shape, set(names(extra))) if extra else ()
    return (*_layer_groups(shape, layers, regime), *outside)


def adapter_groups(shape: Architecture, regime: Regime) -> tuple[Group, ...]:
    """LoRA's two matrices beside each adapted layer, and DoRA's vector."""
    groups = []
    adapted = [(m, shape.layers) for m in shape.linears if regime.adapts(m.name)]
    named = {name.rpartition(".")[2] for name in regime.targets}
    if named & HEADS:
        adapted.append((Linear("lm_head", shape.hidden, shape.vocabulary), 1))
    for layer, many in adapted:
        groups.append(Group(regime.rank, layer.inputs, many))
        groups.append(Group(layer.outputs, regime.rank, many))
        if regime.dora:
            groups.append(Group(layer.outputs, 1, many))
    if named & EMBEDDINGS:
        groups.append(Group(regime.rank, shape.vocabulary, 1))
        groups.append(Group(shape.hidden, regime.rank, 1))
    return tuple(groups)


def _whole_groups(shape: Architecture, method: MethodTable) -> tuple[Group, ...]:
    """The copies of modules that train whole beside adapters (peft's modules_to_save); norms are not counted."""
    if method.additional_target is None:
        return ()
    named = {name.rpartition(".")[2] for name in names(method.additional_target)}
    inside = tuple(
        Group(m.outputs, m.inputs, shape.layers) for m in shape.linears if m.name in named
    )
    if shape.tied and named & (EMBEDDINGS | HEADS):
        return (*inside, Group(shape.vocabulary, shape.hidden, 1, embedding=True))
    return (*inside, *_outside_groups(shape, named))


def _layer_groups(shape: Architecture, layers: int, regime: Regime) -> tuple[Group, ...]:
    groups = []
    for layer in shape.linears:
        if regime.moves(layer, shape):
            groups.append(Group(layer.outputs, layer.inputs, layers))
            if layer.bias:
                groups.append(Group(layer.outputs, 1, layers))
    if shape.experts and not (regime.modules and set(regime.modules).isdisjoint(FEED_FORWARD)):
        inner = shape.expert_numbers // max(1, 3 * shape.hidden)
        groups.append(Group(2 * inner, shape.hidden, layers))
        groups.append(Group(shape.hidden, inner, layers))
    if not regime.modules:
        groups.append(Group(shape.hidden, 1, layers * shape.norms * shape.norm_weights))
        if shape.query_norm == "head":
            groups.append(Group(shape.head_dim, 1, 2 * layers))
        elif shape.query_norm == "whole":
            groups.append(Group(shape.heads * shape.head_dim, 1, layers))
            groups.append(Group(shape.kv_heads * shape.head_dim, 1, layers))
    return tuple(groups)


def _outside_groups(shape: Architecture, modules: set[str] | None) -> tuple[Group, ...]:
    groups = []
    if modules is None or modules & EMBEDDINGS:
        groups.append(Group(shape.vocabulary, shape.hidden, 1, embedding=True))
    if not shape.tied and (modules is None or modules & HEADS):
        groups.append(Group(shape.outputs, shape.hidden, 1))
    if shape.positions and modules is None:
        groups.append(Group(shape.positions, shape.hidden, 1, embedding=True))
    if shape.norm_weights and (modules is None or modules & {"norm", "ln_f", "final_layer_norm"}):
        groups.append(Group(shape.hidden, 1, shape.norm_weights))
    return tuple(groups)


def numbers(groups: tuple[Group, ...]) -> int:
    """How many numbers train."""
    return sum(g.count * g.many for g in groups)


def size_of(groups: tuple[Group, ...], width: int) -> int:
    """Bytes of the weights themselves, or of their gradients."""
    return sum(rounded(g.count * width) * g.many for g in groups)


def base_weights(shape: Architecture, regime: Regime, method: MethodTable) -> int:
    """The model's own weights as they are held; adapters apart."""
    if shape.parameters is not None:
        inside = shape.parameters - shape.outside_size()
        linear, small = max(0, inside), 0
        layers = _held(linear, 0, regime)
        return layers + shape.outside_size() * regime.weight
    layer = sum(_held(m.weight, m.outputs, regime) for m in shape.linears)
    small = shape.layer_small() * regime.weight + shape.expert_numbers * regime.weight
    total = shape.layers * (layer + rounded(small))
    total += rounded(shape.outside_size() * regime.weight)
    if regime.method == "freeze" and regime.trained != regime.frozen:
        total += (regime.trained - regime.frozen) * numbers(trained_groups(shape, regime, method))
    return total


def _held(count: int, outputs: int, regime: Regime) -> int:
    """A linear layer's weight: in 4 bits with its scales and tables, in 8 with a scale for each row, or as it is."""
    if regime.bits == 4:
        blocks = -(-count // SCALED)
        if regime.nested:
            return rounded(count / 2) + rounded(blocks) + rounded(4 * blocks / NESTED) + 4 * ROUND
        return rounded(count / 2) + rounded(4 * blocks) + ROUND
    if regime.bits == 8:
        return rounded(count) + rounded(4 * outputs)
    return rounded(count * regime.weight)


def optimizer_states(
    groups: tuple[Group, ...], train: TrainTable, width: int, *, cuda: bool
) -> int:
    """What the optimizer holds on the device. `width` is that of the weights."""
    if train.offload_optimizer:
        return 0
    if train.optim in PROJECTED:
        return sum(g.many * _projected(g, train, width) for g in groups)
    return sum(g.many * _state(g, train, width, cuda=cuda) for g in groups)


def _state(group: Group, train: TrainTable, width: int, *, cuda: bool) -> int:
    """The states of one weight, by optimizer."""
    count, optim = group.count, train.optim
    if optim == "adafactor":
        return _factored(group.rows, group.columns)
    if optim == "sgd":
        return rounded(count * width) if _settings(train).get("momentum") else 0
    if optim in ("adamw_torch", "adamw_torch_fused"):
        step = ROUND if is_fused(train, cuda=cuda) else 0
        return 2 * rounded(count * width) + step
    states = 1 if "lion" in optim else 2
    paged = optim.startswith("paged") and count >= LEAST_PAGED
    small = optim.endswith("8bit") and count >= LEAST_8BIT and not group.embedding
    held = 0 if paged else states * rounded(count * (1 if small else 4))
    return held + (states * rounded(4 * -(-count // BLOCK)) if small else 0)


def _factored(rows: int, columns: int) -> int:
    """adafactor's states of one weight: a number in fp32 for each row and each column; of a vector for each entry."""
    return rounded(4 * rows) + rounded(4 * columns) if columns > 1 else rounded(4 * rows * columns)


def _projected(group: Group, train: TrainTable, width: int) -> int:
    """galore's and apollo's states of one weight: two numbers for each of the gradient's projection on `rank`
    directions along its shorter side (adafactor's in their place), and the projection itself (Zhao et al. 2024, arXiv
    2403.03507, table 1)."""
    rank = int(_settings(train).get("rank", RANK))
    small = 1 if train.optim.endswith("8bit") else width
    short, long = sorted((group.rows, group.columns))
    whole = group.embedding or group.many == 1 or short <= rank
    if train.optim == "galore_adafactor":
        if whole:
            return _factored(group.rows, group.columns)
        return _factored(rank, long) + rounded(4 * rank * short)
    if whole:
        return 2 * rounded(group.count * (width if group.embedding else small))
    return 2 * rounded(rank * long * small) + rounded(rank * short * width)


def is_fused(train: TrainTable, *, cuda: bool) -> bool:
    """Whether AdamW updates in one kernel: as `core.train.optimizers` has it."""
    return train.optim == "adamw_torch_fused" or (train.optim == "adamw_torch" and cuda)


def _settings(train: TrainTable) -> dict[str, Scalar]:
    try:
        return optim_args(train.optim, train.optim_args)
    except OptimArgsError:
        return {}


def update_scratch(groups: tuple[Group, ...], train: TrainTable, width: int, *, cuda: bool) -> int:
    """What comes and goes within an update.

    AdamW on the CPU takes the root of a weight's second moments, in one kernel nothing. sgd makes a copy of the
    gradients that decay: on CUDA of all at once (torch's foreach form). adafactor makes two copies in fp32 of one
    weight at a time, and more where the weight is not. galore decomposes a gradient in fp32.
    """
    if train.offload_optimizer or not groups:
        return 0
    widest = max(groups, key=lambda group: group.count)
    largest = widest.count
    if train.optim == "adafactor":
        # The copy of the weight before lives on into the next one's turn.
        copies = (2 if width == 4 else 4) + (1 if widest.many > 1 else 0)
        return rounded(4 * largest) * copies
    if train.optim == "adamw_torch" and not cuda:
        return 2 * largest * width
    if train.optim == "sgd" and train.weight_decay:
        decaying = tuple(group for group in groups if group.columns > 1)
        return size_of(decaying, width) if cuda else largest * width
    if train.optim in PROJECTED:
        return 3 * rounded(4 * max((g.count for g in groups if not g.embedding), default=0))
    return 0
