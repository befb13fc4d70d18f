"""TRL's fused output head on a `Tape` (trl/kernels/chunked_logprob.py of 1.16): log probabilities without the scores of
all tokens. On CUDA the tokens of answers alone are scored, by a kernel that folds each tile in place; on the CPU all
are, in PyTorch."""

from core.memory.estimate.scene import Scene
from core.memory.estimate.tape import Step, Tensor, Weight

VOCABULARY = 32768
"""Tokens of the vocabulary whose scores exist at once: the buffer has as many columns, however many there are."""
TOKENS = 4096
"""Tokens of the batch whose scores do."""
FOLDED = 13
"""Bytes a score that folding a tile takes on the CPU: the scores, which of them come before the target, their powers of
e, and the product of both."""
UNFOLDED = 29
"""The same for the gradient: five tensors of it, which tokens are targets, and the difference to them."""


def log_probs(scene: Scene, hidden: Tensor, head: Weight, answers: int) -> Tensor:
    """The log probability of each token; `hidden` (of all tokens) is given up. `answers` of the tokens are scored."""
    tape, shape = scene.tape, scene.shape
    all_but_last = hidden.count // scene.length * (scene.length - 1)
    sliced = Tensor(all_but_last, hidden.width, hidden.grad, tape.keep(hidden).store)
    tape.record(Step(sliced, [hidden] if hidden.grad else [], ()))
    tokens = answers if scene.regime.cuda else scene.rows * (scene.length - 1)
    # The answers' tokens are picked out of all, or all are copied into one piece.
    chosen = tape.make(tokens * shape.hidden, hidden.width, hidden.grad)
    flowing = [sliced] if hidden.grad else []
    tape.record(Step(chosen, flowing, (), shares=not scene.regime.cuda))
    small = tape.make(2 * tokens, 4)
    tape.label = 1
    tiles = _tiles(scene, tokens, hidden.width, head)
    folded = 0 if scene.regime.cuda else FOLDED * _tile(scene, tokens)
    tape.scratch(tiles + folded + 5 * 4 * tokens)
    out = tape.make(scene.tokens, 4, hidden.grad or head.trains)
    scratch = tiles + _backward_scratch(scene, chosen, head, tokens)
    saved = [chosen.store, small.store]
    learnt = [head] if head.trains else []
    tape.record(Step(out, [chosen] if hidden.grad else [], saved, scratch, learnt))
    tape.drop(small, chosen, sliced, hidden)
    return out


def _tile(scene: Scene, tokens: int) -> int:
    """Scores of a tile."""
    return min(tokens, TOKENS) * min(scene.shape.vocabulary, VOCABULARY)


def _tiles(scene: Scene, tokens: int, width: int, head: Weight) -> int:
    """The buffer of scores, and what is multiplied where that is held in other numbers."""
    shape = scene.shape
    own = scene.regime.autocast or width
    some = min(tokens, TOKENS)
    size = some * VOCABULARY * own
    size += some * shape.hidden * own if own != width else 0
    size += min(shape.vocabulary, VOCABULARY) * shape.hidden * own if own != head.width else 0
    return size


def _backward_scratch(scene: Scene, chosen: Tensor, head: Weight, tokens: int) -> int:
    """Sums of gradients in fp32 where what they become is not, and what a tile takes on the CPU."""
    size = 4 * chosen.count if chosen.width < 4 else 0
    if head.trains:
        size += 4 * head.count + (head.width * head.count if head.width < 4 else 0)
    if scene.regime.cuda:
        return size
    tile = _tile(scene, tokens)
    half = (scene.regime.autocast or chosen.width) < 4
    columns = min(scene.shape.vocabulary, VOCABULARY)
    product = 4 * tile + 4 * columns * scene.shape.hidden if half else 0
    return size + max(UNFOLDED * tile, product)
