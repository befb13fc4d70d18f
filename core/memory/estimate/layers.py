"""One decoder layer on a `Tape`: the operations of transformers' modeling files (5.23), as far as they allocate."""

from collections.abc import Sequence

from core.memory.estimate.linears import linear, product, scaled
from core.memory.estimate.scene import Scene
from core.memory.estimate.tape import Step, Tape, Tensor, Weight
from core.memory.models.shape import Linear


def decoder_layer(scene: Scene, hidden: Tensor, rotary_width: int) -> Tensor:
    """A layer's forward. `hidden` (tokens × hidden) is given up; the layer's result is returned."""
    if scene.shape.parallel:
        return _parallel_layer(scene, hidden, rotary_width)
    tape = scene.tape
    for part in (_attention, _feed_forward):
        given = _maybe_norm(scene, hidden, scene.shape.norm_first)
        made = part(scene, given, rotary_width)
        if scene.shape.norms == 4 or not scene.shape.norm_first:
            made = norm(scene, made)
        made = _residual_dropout(scene, made)
        if scene.shape.residual_scale:
            made = scaled(tape, made)
        hidden = tape.add(hidden, made)
    return hidden


def _parallel_layer(scene: Scene, hidden: Tensor, rotary_width: int) -> Tensor:
    """Attention and feed-forward on the same residual (GPT-NeoX, Falcon, Phi, Cohere)."""
    tape = scene.tape
    one = norm(scene, tape.keep(hidden))
    other = norm(scene, tape.keep(hidden)) if scene.shape.norms > 1 else tape.keep(one)
    attended = _residual_dropout(scene, _attention(scene, one, rotary_width))
    forwarded = _residual_dropout(scene, _feed_forward(scene, other, rotary_width))
    return tape.add(hidden, tape.add(attended, forwarded))


def _maybe_norm(scene: Scene, hidden: Tensor, wanted: bool) -> Tensor:
    kept = scene.tape.keep(hidden)
    return norm(scene, kept) if wanted else kept


def _residual_dropout(scene: Scene, given: Tensor) -> Tensor:
    if not scene.shape.dropout or not scene.training:
        return given
    tape = scene.tape
    mask = tape.make(given.count, scene.mask_width(given))
    out = tape.apply((given,), given.count, given.width, saved=(mask,))
    tape.drop(mask, given)
    return out


def norm(
    scene: Scene, given: Tensor, count: int | None = None, trains: bool | None = None
) -> Tensor:
    """A norm over the last dimension; `given` is given up. `count` is the numbers of its weight."""
    shape, tape = scene.shape, scene.tape
    size = given.count
    rows = size // (count or shape.hidden)
    learns = scene.trains and not scene.regime.modules if trains is None else trains
    weight = scene.weight((count or shape.hidden) * shape.norm_weights, learns)
    if shape.norm == "layer":
        return _layer_norm(scene, given, weight, rows)
    # In fp32: x², its mean, the product with the inverse root; saved are x and the inverse root.
    wide = tape.cast(given, 4)
    small = tape.make(rows, 4)
    squared = tape.make(size, 4)
    tape.drop(squared)
    learnt = [weight] if weight.trains else []
    if shape.norm == "rms-fp32":
        normed = tape.apply((wide,), size, 4, saved=(wide, small), backward_scratch=12 * size)
        factor = tape.make(weight.count, 4)
        made = tape.make(size, 4, normed.grad or weight.trains)
        kept = [factor.store, normed.store] if weight.trains else [factor.store]
        tape.record(Step(made, [t for t in (normed,) if t.grad], kept, 0, learnt))
        tape.drop(normed, factor, wide, small, given)
        out = tape.cast(made, given.width)
        tape.drop(made)
        return out
    normed = tape.apply((wide,), size, 4, saved=(wide, small), backward_scratch=12 * size)
    tape.drop(wide, small)
    width = given.width
    tape.drop(given)
    lowered = tape.cast(normed, width)
    tape.drop(normed)
    out = tape.make(size, max(width, weight.width), lowered.grad or weight.trains)
    kept = [lowered.store] if weight.trains else []
    scratch = size * out.width if weight.trains else 0
    tape.record(Step(out, [t for t in (lowered,) if t.grad], kept, scratch, learnt))
    tape.drop(lowered)
    return out


def _layer_norm(scene: Scene, given: Tensor, weight: Weight, rows: int) -> Tensor:
    """torch's own: one operation, that saves its input and two numbers a row; in fp32 under autocast."""
    tape, autocast = scene.tape, scene.regime.autocast
    wide = tape.cast(given, 4) if autocast else tape.keep(given)
    tape.drop(given)
    copy = tape.lowered(weight, wide.width) if autocast and weight.count else None
    small = tape.make(2 * rows, 4)
    out = tape.make(wide.count, wide.width, wide.grad or weight.trains)
    kept = [wide.store, small.store] + ([copy] if copy is not None else [])
    learnt = [weight] if weight.trains and weight.count else []
    tape.record(Step(out, [wide] if wide.grad else [], kept, 0, learnt))
    tape.release(copy)
    tape.drop(wide, small)
    return out


def _attention(scene: Scene, given: Tensor, rotary_width: int) -> Tensor:
    """Projections, rotary positions, attention, the output's projection; `given` is given up."""
    shape, tape = scene.shape, scene.tape
    *makers, out = shape.attention
    queries = scene.tokens * shape.heads * shape.head_dim
    keys = scene.tokens * shape.kv_heads * shape.head_dim
    if len(makers) == 3:
        made = [linear(scene, tape.keep(given), maker) for maker in makers]
    else:
        fused = linear(scene, tape.keep(given), makers[0])
        made = _split(scene, fused, (queries, keys, keys))
    tape.drop(given)
    query, key, value = made
    if shape.query_norm != "none":
        width = shape.head_dim if shape.query_norm == "head" else None
        query = norm(scene, query, width or shape.heads * shape.head_dim)
        key = norm(scene, key, width or shape.kv_heads * shape.head_dim)
    if shape.rotary:
        query, key = rotate(tape, query, rotary_width), rotate(tape, key, rotary_width)
    attended = (
        eager(scene, query, key, value)
        if scene.regime.kernel in ("eager", "math")
        else (fused_attention(scene, query, key, value))
    )
    return linear(scene, attended, out)


def _split(scene: Scene, fused: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Views of one projection. Their gradients are joined into one as large as all."""
    tape = scene.tape
    views = []
    for count in counts:
        view = Tensor(count, fused.width, fused.grad, tape.keep(fused).store)
        tape.record(Step(view, [fused] if fused.grad else [], ()))
        views.append(view)
    tape.drop(fused)
    return views


def rotate(tape: Tape, given: Tensor, width: int) -> Tensor:
    """apply_rotary_pos_emb: x·cos + rotate_half(x)·sin; what it saves all layers share. `given` is given up."""
    wide = max(given.width, width)
    out = tape.apply(
        (given,),
        given.count,
        wide,
        scratch=given.count * (2 * wide + given.width),
        backward_scratch=given.count * (wide + given.width),
    )
    tape.drop(given)
    return out


def _repeated(scene: Scene, given: Tensor) -> Tensor:
    """Keys or values once for each head of the queries; `given` is given up."""
    shape, tape = scene.shape, scene.tape
    if shape.heads == shape.kv_heads:
        return given
    count = scene.tokens * shape.heads * shape.head_dim
    if shape.kv_heads > 1:
        out = tape.apply((given,), count, given.width)
        tape.drop(given)
        return out
    # A single head is only looked at several times.
    view = Tensor(count, given.width, given.grad, given.store)
    tape.record(Step(view, [given] if given.grad else [], ()))
    return view


def fused_attention(scene: Scene, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """scaled_dot_product_attention in one kernel. All inputs are given up.

    It saves its inputs, its result, a number a row and head, and the mask as numbers. flash-attn takes the rows without
    their padding: copies of them in, and a copy of its result out.
    """
    shape, tape, regime = scene.shape, scene.tape, scene.regime
    masked = regime.masked and regime.kernel != "flash"
    gathered = regime.masked and regime.kernel == "flash"
    if masked:
        key, value = _repeated(scene, key), _repeated(scene, value)
    width = regime.autocast or query.width
    taken = [tape.cast(t, width) for t in (query, key, value)]
    if gathered:
        taken = [scaled(tape, t) for t in taken]
    rows = scene.tokens * shape.heads
    sums = tape.make(rows, 4)
    saved = [*taken, sums]
    if masked:
        mask = tape.make(scene.tokens * scene.length, width)
        saved.append(mask)
    flowing = any(t.grad for t in taken)
    out = tape.make(rows * shape.head_dim, width, flowing)
    kept = [t.store for t in (*saved, out)]
    scratch = _kernel_scratch(scene, rows, taken[0], taken[1])
    tape.record(Step(out, [t for t in taken if t.grad], kept, scratch))
    # The layer's code names what it gives as long as the kernel runs.
    tape.drop(*saved, query, key, value)
    return scaled(tape, out) if gathered else out


def _kernel_scratch(scene: Scene, rows: int, query: Tensor, key: Tensor) -> int:
    """What the backward kernels take besides the gradients: sums of rows, the queries' gradient in fp32, and with
    grouped heads the keys' and values' gradients of every head (flash_api.cpp, attention_backward.cu, cudnn-frontend).
    """
    kernel, wide = scene.regime.kernel, scene.shape.head_dim
    if kernel == "cpu":
        return 0
    scratch = 4 * rows * (wide + 1)
    if key.count < query.count:
        scratch += 2 * query.count * key.width
    return scratch


def eager(scene: Scene, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with its whole matrix: scores, scaled, masked, softmax in fp32. All inputs are given up."""
    shape, tape, regime = scene.shape, scene.tape, scene.regime
    key, value = _repeated(scene, key), _repeated(scene, value)
    asked = query.width
    width = regime.autocast or query.width
    query_, key_ = tape.cast(query, width), tape.cast(key, width)
    tape.drop(query, key)
    count = scene.tokens * scene.length * shape.heads
    scores = tape.apply((query_, key_), count, width, saved=(query_, key_))
    tape.drop(query_, key_)
    scores = scaled(tape, scores)
    if shape.score_cap:
        scores = _capped(tape, scores)
    if regime.masked:
        wide = max(width, scene.regime.weight)
        masked = tape.apply((scores,), count, wide)
        tape.drop(scores)
        scores = masked
    if scores.width == 2 and regime.precision == "fp16" and regime.cuda:
        wide_scores = tape.keep(scores)
    else:
        wide_scores = tape.cast(scores, 4)
    tape.drop(scores)
    shares = tape.make(count, 4, wide_scores.grad)
    tape.record(Step(shares, [wide_scores] if wide_scores.grad else [], [shares.store], 4 * count))
    tape.drop(wide_scores)
    returned = tape.cast(shares, asked)
    tape.drop(shares)
    if shape.attention_dropout and scene.training:
        mask = tape.make(count, scene.mask_width(returned))
        dropped = tape.apply((returned,), count, returned.width, saved=(mask,))
        tape.drop(mask, returned)
        returned = dropped
    weights, value_ = tape.cast(returned, width), tape.cast(value, width)
    tape.drop(value)
    out = tape.apply(
        (weights, value_),
        scene.tokens * shape.heads * shape.head_dim,
        width,
        saved=(weights, value_),
    )
    tape.drop(weights, value_)
    joined = scaled(tape, out)  # heads beside each other: a copy
    tape.drop(returned)
    return joined


def _capped(tape: Tape, given: Tensor) -> Tensor:
    """cap · tanh(x / cap): tanh saves its result."""
    divided = scaled(tape, given)
    out = tape.make(divided.count, divided.width, divided.grad)
    tape.record(Step(out, [divided] if divided.grad else [], [out.store]))
    tape.drop(divided)
    return scaled(tape, out)


def _feed_forward(scene: Scene, given: Tensor, _rotary_width: int) -> Tensor:
    """The feed-forward part; `given` is given up."""
    shape, tape = scene.shape, scene.tape
    if shape.experts:
        return _experts(scene, given)
    if not shape.gated:
        inner = activation(scene, linear(scene, given, shape.mlp[0]))
        return linear(scene, inner, shape.mlp[1])
    if len(shape.mlp) == 2:
        fused = linear(scene, given, shape.mlp[0])
        half = fused.count // 2
        gate, up = _split(scene, fused, (half, half))
        opened = activation(scene, gate)
    else:
        opened = activation(scene, linear(scene, tape.keep(given), shape.mlp[0]))
        up = linear(scene, given, shape.mlp[1])
    inner = multiply(tape, opened, up)
    return linear(scene, inner, shape.mlp[-1])


def multiply(tape: Tape, one: Tensor, other: Tensor) -> Tensor:
    """A product of two tensors saves both. They are given up."""
    out = tape.apply((one, other), one.count, max(one.width, other.width), saved=(one, other))
    tape.drop(one, other)
    return out


def activation(scene: Scene, given: Tensor) -> Tensor:
    """The activation's function; `given` is given up."""
    tape = scene.tape
    if not scene.shape.fused_activation:
        return _gelu_new(scene, given)
    if scene.shape.activation in ("relu", "tanh"):
        out = tape.make(given.count, given.width, given.grad)
        tape.record(Step(out, [given] if given.grad else [], [out.store]))
    else:
        out = tape.apply((given,), given.count, given.width, saved=(given,))
    tape.drop(given)
    return out


def _gelu_new(scene: Scene, given: Tensor) -> Tensor:
    """0.5 · x · (1 + tanh(c · (x + 0.044715 · x³))), operation by operation; autocast takes the power in fp32."""
    tape, count = scene.tape, given.count
    wide = tape.cast(given, 4) if scene.regime.autocast else tape.keep(given)
    half = tape.apply((given,), count, given.width)
    cubed = tape.apply(
        (wide,), count, wide.width, saved=(wide,), backward_scratch=3 * count * wide.width
    )
    tape.drop(wide)
    inner = scaled(tape, tape.add(scaled(tape, cubed), given))
    squashed = tape.make(count, inner.width, inner.grad)
    tape.record(Step(squashed, [inner] if inner.grad else [], [squashed.store]))
    tape.drop(inner)
    return multiply(tape, half, scaled(tape, squashed))


def _experts(scene: Scene, given: Tensor) -> Tensor:
    """A mixture of experts as one feed-forward part as wide as the experts that a token goes through."""
    shape, tape = scene.shape, scene.tape
    inner = shape.intermediate
    wide = Linear("experts", shape.hidden, inner)
    back = Linear("experts", inner, shape.hidden)

    def through(tensor: Tensor, layer: Linear) -> Tensor:
        made = product(scene, tensor, scene.weight(layer.weight), layer.outputs)
        tape.drop(tensor)
        return made

    opened = activation(scene, through(tape.keep(given), wide))
    up = through(given, wide)
    return through(multiply(tape, opened, up), back)
