"""The loss in chunks of tokens, so that the scores over the whole vocabulary never exist for a whole batch.

A causal language model makes logits of batch × length × vocabulary numbers, its loss a copy of them in fp32, and the
backward pass their gradient. Here the decoder runs as it is; then the head runs on `tokens` hidden states at a time,
each chunk's logits are forgotten, and the backward pass computes them again (as gradient checkpointing does with
layers). What is kept between the passes is the hidden states: batch × length × hidden numbers.

The head is the model's own: its forward runs, with the decoder's output in place of the decoder. So whatever stands
there works as without chunks: an adapter on the head, tied embeddings, a scale, soft caps.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutput

from core.train.data.examples import IGNORED
from core.train.errors import ModelError


@dataclass
class ChunkedOutput(CausalLMOutput):  # type: ignore[misc]
    """A loss whose scores exist no more."""

    hits: Any = None
    """Where no gradients are wanted: how many of the learnt tokens were given the highest score."""


def chunk_loss(model: Any, tokens: int) -> None:
    """Let `model`, a causal language model of transformers (without adapters around it yet, or the one inside of
    them), compute its loss from `tokens` tokens at a time whenever it is given labels.

    It then returns the loss alone: the mean over the learnt tokens, or their sum over num_items_in_batch.

    Raises:
        ModelError: the model's loss is another one, or its decoder cannot be told from its head.
    """
    if not _decoders(model):
        raise _refusal("its decoder cannot be told from its head")
    if not _is_token_mean(model):
        raise _refusal("its loss is not the cross-entropy of the next token alone")
    if not _calls_its_loss(model):
        raise _refusal("its code computes a loss of its own")
    model.forward = ChunkedLoss(model, tokens)
    # Read by the Trainer: without it, a model that ignores num_items_in_batch is asked for logits.
    model.accepts_loss_kwargs = True


class ChunkedLoss:
    """A forward in place of a model's own. Without labels it is the model's own."""

    def __init__(self, model: Any, tokens: int) -> None:
        self._model = model
        self._tokens = tokens
        self._forward: Callable[..., Any] = model.forward

    def __call__(
        self, *inputs: Any, labels: Any = None, num_items_in_batch: Any = None, **settings: Any
    ) -> Any:
        """The model's output; given labels (rows × tokens), one that holds nothing but the loss.

        Raises:
            ModelError: the model's forward does not go through its decoder once.
        """
        if labels is None:
            return self._forward(*inputs, **settings)
        decoded = self._decode(*inputs, **settings)

        def scores(hidden: Any) -> Any:
            given = decoded.output(last_hidden_state=hidden)
            with _in_place(decoded.decoder, lambda *_, **__: given):
                return self._forward(*inputs, **settings).logits

        hidden = decoded.hidden.flatten(0, 1)
        targets = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:].flatten()
        targets = targets.to(hidden.device)
        total: Any = 0.0
        hits: Any = None if torch.is_grad_enabled() else 0
        # A split's backward joins the chunks' gradients once; that of a slice would make a whole one for each chunk.
        for part, wanted in zip(
            hidden.split(self._tokens), targets.split(self._tokens), strict=True
        ):
            if hits is None:
                total = total + _summed(scores, part[None], wanted)
            else:
                loss, right = _judged(scores, part[None], wanted)
                total, hits = total + loss, hits + right
        if num_items_in_batch is None:
            num_items_in_batch = (targets != IGNORED).sum()
        elif torch.is_tensor(num_items_in_batch):
            num_items_in_batch = num_items_in_batch.to(hidden.device)
        return ChunkedOutput(loss=total / num_items_in_batch, hits=hits)

    def _decode(self, *inputs: Any, **settings: Any) -> "_Decoded":
        """What the decoder makes of a batch; the head sees one token, and what it says is dropped."""
        ran: list[_Decoded] = []
        with ExitStack() as stack:
            for module in _decoders(self._model):
                stack.enter_context(_in_place(module, _recorder(module, ran)))
            self._forward(*inputs, **settings)
        if not ran:
            raise _refusal("its decoder cannot be told from its head")
        return ran[0]


@dataclass(slots=True)
class _Decoded:
    """A decoder that has run."""

    decoder: Any
    output: Any = None
    """The class of what it returned. The rest of that, as keys and values, need not be held."""
    hidden: Any = None
    """Its last hidden states, rows × tokens × hidden."""


def _recorder(module: Any, ran: list[_Decoded]) -> Callable[..., Any]:
    """The forward of `module`, which notes itself in `ran` unless it runs inside of another one that does, and gives
    on the first token alone."""
    run = module.forward

    def forward(*inputs: Any, **settings: Any) -> Any:
        if ran:
            if ran[0].decoder is module:
                raise _refusal("its decoder runs more than once")
            return run(*inputs, **settings)
        ran.append(_Decoded(module))
        made = run(*inputs, **settings)
        hidden = getattr(made, "last_hidden_state", None)
        if hidden is None:
            raise _refusal("its decoder does not say what its hidden states are")
        ran[0].output, ran[0].hidden = type(made), hidden
        return type(made)(last_hidden_state=hidden[:1, :1])

    return forward


def _decoders(model: Any) -> list[Any]:
    """What may be the model's decoder, the outer one first: some heads stand on the model, some on what is in it."""
    candidates = (model.base_model, getattr(model, "model", None), model.get_decoder())
    return [m for m in dict.fromkeys(candidates) if m is not None and m is not model]


def _summed(scores: Callable[[Any], Any], hidden: Any, targets: Any) -> Any:
    """The sum of the cross-entropy over a chunk, whose logits live no longer than this call."""

    def summed(hidden: Any) -> Any:
        return _cross_entropy(scores(hidden).flatten(0, 1), targets)

    return checkpoint(summed, hidden, use_reentrant=False)


def _judged(scores: Callable[[Any], Any], hidden: Any, targets: Any) -> tuple[Any, Any]:
    """The same where no gradients are wanted, and how many learnt tokens have the highest score."""
    logits = scores(hidden).flatten(0, 1)
    right = ((logits.argmax(-1) == targets) & (targets != IGNORED)).sum()
    return _cross_entropy(logits, targets), right


def _cross_entropy(logits: Any, targets: Any) -> Any:
    """The sum over the learnt tokens, in fp32."""
    return torch.nn.functional.cross_entropy(
        logits.float(), targets, ignore_index=IGNORED, reduction="sum"
    )


@contextmanager
def _in_place(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Let `module` run `forward` instead of its own; accelerate's, where it put one there, comes back after."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _is_token_mean(model: Any) -> bool:
    """Whether the model's loss is the mean cross-entropy of the next token. A mixture of experts that is told to give
    its router's scores adds the router's loss to it."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    router = getattr(model.config.get_text_config(), "output_router_logits", False)
    return model.loss_function is ForCausalLMLoss and not router


def _calls_its_loss(model: Any) -> bool:
    """Whether the model's forward uses its loss function. Some compute another loss and leave that aside: BART's and
    Whisper's decoders take the same token for the next one."""
    code = getattr(inspect.unwrap(type(model).forward), "__code__", None)
    return code is not None and "loss_function" in code.co_names


def _refusal(reason: str) -> ModelError:
    return ModelError(
        f"train.loss_chunk_tokens does not work with this model: {reason}; leave it out"
    )
