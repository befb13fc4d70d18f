"""Linear layers on a `Tape`: as they are, in 4 or 8 bits, and with adapters.

Each function follows the code that it is named after (torch 2.13, peft 0.21, bitsandbytes 0.50) as far as it allocates:
which tensors exist, in which type, and which of them are saved for the backward pass.
"""

from core.memory.estimate.scene import Scene
from core.memory.estimate.states import SCALED
from core.memory.estimate.tape import Step, Tape, Tensor, Weight
from core.memory.models.shape import Linear


def linear(scene: Scene, given: Tensor, layer: Linear) -> Tensor:
    """A linear layer of the decoder with its adapter, if it has one; `given` is given up."""
    regime = scene.regime
    if regime.bits == 4:
        made = _linear_4bit(scene, given, layer)
    elif regime.bits == 8:
        made = _linear_8bit(scene, given, layer)
    else:
        learns = scene.trains and regime.moves(layer, scene.shape)
        made = product(scene, given, scene.weight(layer.weight, learns), layer.outputs)
    if not regime.adapts(layer.name):
        scene.tape.drop(given)
        return made
    return _adapted(scene, given, made, layer)


def product(scene: Scene, given: Tensor, weight: Weight, outputs: int) -> Tensor:
    """torch's linear: saves its input where the weight trains, and the weight where the input wants a gradient."""
    tape, autocast = scene.tape, scene.regime.autocast
    width = autocast or max(given.width, weight.width)
    lowered = tape.cast(given, width)
    copy = tape.lowered(weight, width) if weight.width != width else None
    rows = given.count * outputs // weight.count
    out = tape.make(rows * outputs, width, lowered.grad or weight.trains)
    saved = [lowered.store] if weight.trains else []
    if copy is not None and lowered.grad:
        saved.append(copy)
    learnt = [weight] if weight.trains else []
    tape.record(Step(out, [lowered] if lowered.grad else [], saved, 0, learnt))
    tape.release(copy)
    tape.drop(lowered)
    return out


def _linear_4bit(scene: Scene, given: Tensor, layer: Linear) -> Tensor:
    """bitsandbytes: the weight is unpacked for the forward product and once more for the backward one."""
    tape, regime = scene.tape, scene.regime
    width = regime.autocast or (4 if regime.precision == "fp32" else 2)
    lowered = tape.cast(given, width)
    scales = 2 * 4 * layer.weight // SCALED if regime.nested else 0
    out = tape.apply(
        (lowered,),
        given.count // layer.inputs * layer.outputs,
        width,
        scratch=layer.weight * width + scales,
        backward_scratch=layer.weight * width + scales,
    )
    tape.drop(lowered)
    back = tape.cast(out, given.width)
    tape.drop(out)
    return back


def _linear_8bit(scene: Scene, given: Tensor, layer: Linear) -> Tensor:
    """bitsandbytes: the input is kept, as an attribute and not by autograd; the product is in int32, then fp16; the
    backward pass copies the weight."""
    tape = scene.tape
    rows = given.count // layer.inputs
    half = 0 if given.width == 2 and scene.regime.precision == "fp16" else 2
    return tape.apply(
        (given,),
        rows * layer.outputs,
        given.width,
        held=(given,),
        scratch=(half + 2) * given.count + 6 * rows * layer.outputs,
        backward_scratch=layer.weight * given.width,
    )


def _adapted(scene: Scene, given: Tensor, made: Tensor, layer: Linear) -> Tensor:
    """peft's LoRA: the input in the adapter's type through two thin matrices, added to what the layer made."""
    tape, regime = scene.tape, scene.regime
    rank, width = regime.rank, made.width
    if regime.bits == 4:
        copy = tape.apply((made,), made.count, made.width)
        tape.drop(made)
        made = copy
    # What the layer was called with lives until it returns.
    called = given
    if regime.bits == 16 or not regime.autocast:
        given = tape.cast(given, regime.trained)
    else:
        tape.keep(given)
    if regime.dora:
        out = _dora(scene, given, made, layer)
        tape.drop(called)
        return out
    dropped = _adapter_dropout(scene, given)
    down = _thin(scene, dropped, layer.inputs * rank, rank)
    tape.drop(dropped)
    up = _thin(scene, down, rank * layer.outputs, layer.outputs)
    tape.drop(down)
    up = scaled(tape, up)
    if regime.bits < 16 and not regime.autocast:
        lowered = tape.cast(up, width)
        tape.drop(up)
        up = lowered
    total = tape.add(made, up)
    out = tape.cast(total, width)
    tape.drop(total, given, called)
    return out


def _thin(scene: Scene, given: Tensor, count: int, outputs: int) -> Tensor:
    """One of an adapter's matrices."""
    return product(scene, given, Weight(count, scene.regime.trained, trains=True), outputs)


def _adapter_dropout(scene: Scene, given: Tensor) -> Tensor:
    if not scene.regime.dropout or not scene.training:
        return scene.tape.keep(given)
    tape = scene.tape
    mask = tape.make(given.count, scene.mask_width(given))
    out = tape.apply((given,), given.count, given.width, saved=(mask,))
    tape.drop(mask)
    return out


def _dora(scene: Scene, given: Tensor, made: Tensor, layer: Linear) -> Tensor:
    """peft's DoRA: the adapted weight is made in full to take its norm, and the product is scaled by it.

    The weight in the input's type, the adapter's product in both types, their scaled copy, their sum and an identity
    matrix exist at once; none of them is saved.
    """
    tape, regime = scene.tape, scene.regime
    lower = regime.autocast or regime.trained
    full = layer.weight
    identity = layer.inputs**2 * (regime.trained + (lower if lower != regime.trained else 0))
    wide = given.width
    own = 0 if regime.bits == 16 and regime.frozen == wide else wide
    dropped = _adapter_dropout(scene, given)
    # With gradients the product holds on to the identity that it is made of until its norm has been taken.
    saved = layer.inputs**2 * lower if tape.recording else 0
    tape.scratch(max(identity + full * lower, saved + full * (own + 3 * wide)))
    down = _thin(scene, dropped, layer.inputs * regime.rank, regime.rank)
    up = _thin(scene, down, regime.rank * layer.outputs, layer.outputs)
    tape.drop(down)
    base = made
    if regime.dropout and scene.training:
        base = product(scene, dropped, Weight(full, wide, trains=False), layer.outputs)
    else:
        tape.keep(base)
    # (scale - 1) · base + scale · up · factor, with a learnt scale in the adapter's type.
    scale = Weight(layer.outputs, regime.trained, trains=True)
    magnitude = max(base.width, regime.trained)
    # Both factors have names until the sum is returned.
    one = _times_learnt(scene, tape.keep(base), scale, magnitude)
    two = scaled(tape, _times_learnt(scene, tape.keep(up), scale, magnitude))
    tape.drop(dropped)
    added = tape.add(one, two)
    tape.drop(base, up)
    total = tape.add(made, added)
    tape.drop(given)
    # peft's quantised layers leave it as it is under autocast.
    wider = regime.autocast and regime.bits < 16
    out = tape.cast(total, total.width if wider else (lower if regime.autocast else made.width))
    tape.drop(total)
    return out


def _times_learnt(scene: Scene, given: Tensor, scale: Weight, width: int) -> Tensor:
    """A product with a vector that trains saves the other factor; its backward makes their product once more."""
    tape = scene.tape
    out = tape.make(given.count, width, grad=True)
    inputs = [given] if given.grad else []
    tape.record(Step(out, inputs, [given.store], given.count * width, [scale]))
    tape.drop(given)
    return out


def scaled(tape: Tape, given: Tensor) -> Tensor:
    """A product with a number saves nothing."""
    out = tape.apply((given,), given.count, given.width)
    tape.drop(given)
    return out
