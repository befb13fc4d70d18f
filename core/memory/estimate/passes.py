"""A forward and a backward pass over a batch: what a layer keeps between them, and the most that each part needs."""

import msgspec

from core.memory.estimate.fused import log_probs
from core.memory.estimate.layers import decoder_layer, norm
from core.memory.estimate.linears import product, scaled
from core.memory.estimate.regime import Regime
from core.memory.estimate.scene import Scene
from core.memory.estimate.tape import LABELS, Peak, Step, Tape, Tensor, Weight
from core.memory.models.shape import Architecture

Parts = list[int]
"""Bytes by label, in the order of tape.LABELS."""


class Kind(msgspec.Struct, frozen=True):
    """Layers of one kind cost the same."""

    trains: bool
    """Whether its weights (or adapters) train."""
    flows: bool
    """Whether its input wants a gradient."""
    forgets: bool
    """Whether it is checkpointed."""


class LayerCost(msgspec.Struct, frozen=True):
    """What a layer takes, in bytes. Each peak counts from before its input is there."""

    kept: Parts
    """Alive between its forward and its backward pass."""
    forward: Peak
    copies: int
    """Autocast's copies of its weights that live until the forward pass is over, though it does not save them."""
    backward: Peak
    gradients: int
    """Left by its backward pass."""


class TailCost(msgspec.Struct, frozen=True):
    """The same for what comes after the layers: the last norm, the head, the loss."""

    forward: Peak
    after: Peak
    """Once the model is left: its output is copied."""
    kept: Parts
    backward: Peak
    gradients: int


class Batch(msgspec.Struct, frozen=True):
    """How large a batch is, and how it is computed."""

    rows: int
    length: int
    chunk: int | None = None
    """Tokens whose loss is computed at once; None for all."""
    accumulated: bool = False
    """Whether gradients are there already."""
    offload: bool = False
    """Whether activations go to the host."""
    answers: int | None = None
    """Tokens at the end of each row that alone are scored (ppo); None for all."""
    fused: int | None = None
    """Tokens whose log probabilities TRL's fused head computes; None for scores of the whole vocabulary."""

    @property
    def tokens(self) -> int:
        """Of the batch."""
        return self.rows * self.length


def residual_width(regime: Regime, *, embedding_trains: bool) -> int:
    """The width of the numbers between the layers: that of the embeddings, or of what DoRA adds to them in quantised
    layers under autocast."""
    if regime.dora and regime.bits < 16 and regime.autocast:
        return max(regime.weight, regime.trained)
    return regime.trained if embedding_trains and regime.method != "lora" else regime.weight


def layer_cost(
    shape: Architecture,
    regime: Regime,
    batch: Batch,
    kind: Kind,
    width: int,
    *,
    training: bool = True,
) -> LayerCost:
    """A layer of `kind`; `width` is that of the numbers between the layers."""
    records = training and (kind.trains or kind.flows)
    tape = Tape(recording=records and not kind.forgets, graph=records, offload=batch.offload)
    copies, forward, kept, out = _layer_forward(tape, shape, regime, batch, kind, width, training)
    if not records:
        return LayerCost([0] * len(LABELS), forward, copies, Peak(), 0)
    if kind.forgets:
        # The input is all that is kept; the backward pass begins with the forward one, under the gradient.
        given = batch.tokens * shape.hidden * width
        kept[0] += 0 if batch.offload else given
        tape = Tape(recording=True)
        gradient = tape.make(batch.tokens * shape.hidden, width)
        _, _, _, out = _layer_forward(tape, shape, regime, batch, kind, width, training)
        tape.drop(gradient)
    if not kind.forgets:
        tape.forget_peak()
    tape.backward(out, accumulated=batch.accumulated)
    return LayerCost(kept, forward, copies, tape.peak, tape.gradients)


def _layer_forward(
    tape: Tape,
    shape: Architecture,
    regime: Regime,
    batch: Batch,
    kind: Kind,
    width: int,
    training: bool,
) -> tuple[int, Peak, Parts, Tensor]:
    own = kind.trains and regime.method != "lora"
    scene = Scene(tape, shape, regime, batch.rows, batch.length, own, training)
    before = tape.parts.copy()
    hidden = tape.make(batch.tokens * shape.hidden, width, kind.flows)
    out = decoder_layer(scene, hidden, width)
    held = tape.live
    tape.leave_autocast()
    copies = held - tape.live
    peak = tape.peak
    tape.drop(out)
    kept = [now - then for now, then in zip(tape.parts, before, strict=True)]
    return copies, peak, kept, out


def tail_cost(
    shape: Architecture,
    regime: Regime,
    batch: Batch,
    width: int,
    *,
    head_trains: bool,
    norm_trains: bool,
    flows: bool,
    head_waits: bool = False,
    training: bool = True,
) -> TailCost:
    """From the last layer's result to the loss and back; `head_waits` says that the head's gradient is kept apart until
    that of the embeddings, which are the same weight, is there."""
    tape = Tape(recording=training and (flows or head_trains or norm_trains), offload=batch.offload)
    scene = Scene(tape, shape, regime, batch.rows, batch.length, head_trains, training)
    scene.chunk = batch.chunk or batch.tokens
    hidden = tape.make(batch.tokens * shape.hidden, width, flows)
    hidden = norm(scene, hidden, trains=norm_trains)
    if batch.answers is not None:
        hidden = _ends(tape, shape, batch.rows * batch.answers, hidden)
    head = scene.weight(shape.head)
    if batch.fused is not None:
        loss = log_probs(scene, hidden, head, batch.fused)
        return _fused_tail(tape, loss, batch, head_waits, training)
    if batch.chunk is not None and batch.chunk < batch.tokens:
        return _chunked_tail(scene, hidden, head, batch, head_waits)
    loss, logits = _loss(scene, hidden, head)
    forward = tape.peak
    tape.leave_autocast()
    tape.forget_peak()
    if regime.autocast and batch.answers is None:
        copy = tape.make(logits.count, 4)
        tape.drop(copy)
    tape.drop(logits)
    after, kept = tape.peak, tape.parts.copy()
    tape.forget_peak()
    if training:
        tape.backward(loss, accumulated=batch.accumulated and not head_waits)
    return TailCost(forward, after, kept, tape.peak, tape.gradients)


def _fused_tail(
    tape: Tape, loss: Tensor, batch: Batch, head_waits: bool, training: bool
) -> TailCost:
    """What comes after TRL's fused head takes nothing to speak of."""
    forward = tape.peak
    tape.forget_peak()
    kept = tape.parts.copy()
    if training:
        tape.backward(loss, accumulated=batch.accumulated and not head_waits)
    return TailCost(forward, Peak(), kept, tape.peak, tape.gradients)


def _loss(scene: Scene, hidden: Tensor, head: Weight) -> tuple[Tensor, Tensor]:
    """Logits and their cross-entropy, in fp32 (ForCausalLMLoss); `hidden` is given up, the logits live on."""
    tape = scene.tape
    logits = _logits(scene, hidden, head)
    wide = tape.cast(logits, 4)
    return _cross_entropy(tape, wide), logits


def _ends(tape: Tape, shape: Architecture, tokens: int, hidden: Tensor) -> Tensor:
    """The hidden states of answers: ones of their own for the head, and in fp32 for the value head, which saves them.
    `hidden` is given up."""
    own = tape.apply((hidden,), tokens * shape.hidden, hidden.width)
    wide = tape.cast(own, 4)
    values = tape.apply((wide,), tokens, 4, saved=(wide,))
    tape.drop(hidden, wide, values)
    return own


def _logits(scene: Scene, hidden: Tensor, head: Weight) -> Tensor:
    tape, shape = scene.tape, scene.shape
    tape.label = 0 if shape.scored else 1
    logits = product(scene, hidden, head, shape.outputs)
    tape.drop(hidden)
    if shape.logit_scale:
        logits = scaled(tape, logits)
    if shape.logit_cap:
        logits = scaled(tape, _squashed(tape, scaled(tape, logits)))
    return logits


def _cross_entropy(tape: Tape, wide: Tensor) -> Tensor:
    """log_softmax saves its result; `wide` is given up."""
    shares = tape.make(wide.count, 4, wide.grad)
    tape.record(Step(shares, [wide] if wide.grad else [], [shares.store]))
    tape.drop(wide)
    loss = tape.apply((shares,), 1, 4)
    tape.drop(shares)
    return loss


def _squashed(tape: Tape, given: Tensor) -> Tensor:
    out = tape.make(given.count, given.width, given.grad)
    tape.record(Step(out, [given] if given.grad else [], [out.store]))
    tape.drop(given)
    return out


def _chunked_tail(
    scene: Scene, hidden: Tensor, head: Weight, batch: Batch, head_waits: bool
) -> TailCost:
    """The loss of a chunk at a time (core.train.memory.loss): forward keeps the hidden states alone, backward makes
    each chunk's logits again. The chunks' gradients of the head are summed before they are added to what is there."""
    tape = scene.tape
    before, kept = tape.peak, tape.parts.copy()
    forward = _on_top(kept, _chunk(scene, hidden, head, recording=False).peak)
    forward = max(before, forward, key=lambda peak: peak.size)
    if not tape.recording:
        return TailCost(forward, Peak(), kept, Peak(), 0)
    there = head.count * head.width if head.trains else 0
    flow = hidden.count * hidden.width
    with_sums = kept.copy()
    with_sums[0] += flow
    with_sums[3] += there
    chunks = _on_top(with_sums, _chunk(scene, hidden, head, recording=True).peak)
    # Then the chunks' gradients become one, and go back through the norm.
    tape.forget_peak()
    tape.backward(hidden, accumulated=batch.accumulated)
    rest = [0, 0, 0, there]
    joined = _on_top([flow, 0, 0, there], Peak(sum(kept) + flow, kept))
    back = _on_top(rest, tape.peak)
    backward = max(chunks, joined, back, key=lambda peak: peak.size)
    stays = there if head_waits or not batch.accumulated else 0
    return TailCost(forward, Peak(), kept, backward, tape.gradients + stays)


def _chunk(scene: Scene, hidden: Tensor, head: Weight, *, recording: bool) -> Tape:
    """One chunk on a tape of its own: forward, and back where it is recording."""
    shape, regime = scene.shape, scene.regime
    tape = Tape(recording=recording)
    tokens = min(scene.chunk, scene.tokens)
    own = Scene(tape, shape, regime, 1, tokens, scene.trains, scene.training)
    weight = Weight(head.count, head.width, head.trains, summed=True)
    part = tape.make(tokens * shape.hidden, hidden.width, grad=True)
    logits = _logits(own, part, weight)
    wide = tape.cast(logits, 4)
    tape.drop(logits)
    loss = _cross_entropy(tape, wide)
    tape.leave_autocast()
    if recording:
        tape.backward(loss, accumulated=True)
    return tape


def _on_top(parts: Parts, peak: Peak) -> Peak:
    """A peak while `parts` is alive besides."""
    both = [a + b for a, b in zip(parts, peak.parts, strict=True)]
    return Peak(sum(both), both)
