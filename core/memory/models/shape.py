"""The shape of a causal language model: what a forecast of its memory goes by."""

from typing import Literal

import msgspec

Kind = Literal["llama-like", "gpt2-like", "unknown"]
NormKind = Literal["rms", "rms-fp32", "layer"]

MOST_LAYERS = 2000
"""A model with more is taken for a damaged config.json: the deepest that was published has 1000 (DeepNet)."""
LARGEST = 10**8
"""The same for its widths and its vocabulary."""


class ArchitectureError(Exception):
    """A model's shape cannot be found; the message says why and what would help."""


class Linear(msgspec.Struct, frozen=True):
    """A linear layer by the name that method.lora_target knows it by."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weight(self) -> int:
        """Its numbers without the bias."""
        return self.inputs * self.outputs


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder of equal layers. Sizes are counts of numbers, not bytes."""

    kind: Kind
    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the output head is the embeddings."""
    attention: tuple[Linear, ...]
    """The linear layers of a layer's attention: what makes queries, keys and values first, the output last."""
    mlp: tuple[Linear, ...]
    """Those of its feed-forward part; the last one leads back to `hidden`."""
    gated: bool
    """Whether the feed-forward part multiplies two projections."""
    activation: str = "silu"
    norm: NormKind = "rms"
    """`rms-fp32` computes in fp32 up to its result (Gemma); `layer` is torch's LayerNorm."""
    norms: int = 2
    """Norms over `hidden` in a layer: 4 norm what attention and feed-forward give as well; 1 serves both."""
    norm_first: bool = True
    """False: only what attention and feed-forward give is normed (OLMo 2)."""
    norm_weights: int = 1
    """Vectors of numbers in a norm: 0 (OLMo), 1, or 2 with a bias."""
    query_norm: Literal["none", "head", "whole"] = "none"
    """Whether queries and keys are normed, each head alone or all together."""
    rotary: bool = True
    positions: int = 0
    """Learned positions; 0 where there is no table of them."""
    embedding_norm: bool = False
    parallel: bool = False
    """Whether attention and feed-forward read the same residual and are added at once."""
    residual_scale: bool = False
    dropout: float = 0.0
    """Of the residual and the embeddings, as the config has it."""
    attention_dropout: float = 0.0
    eager: bool = False
    """Whether its attention holds the whole matrix, whatever model.attn says: transformers has no other for it."""
    score_cap: bool = False
    """Whether attention's scores go through tanh (Gemma 2), which needs eager attention."""
    logit_cap: bool = False
    """Whether the logits go through tanh."""
    logit_scale: bool = False
    head_bias: bool = False
    scored: bool = False
    """Whether one score stands in place of the output head (a reward model); `tied` is False then."""
    fused_activation: bool = True
    """Whether the activation is one operation of torch; GPT-2's own form of GELU is eight."""
    window: int = 0
    """Tokens that attention with a sliding window looks back; 0 without."""
    windowed: float = 0.0
    """The share of layers that have the window."""
    experts: int = 0
    experts_per_token: int = 0
    expert_numbers: int = 0
    """Numbers in all the experts of a layer, which are no linear layers in transformers."""
    quantized: str = ""
    """The method by which the files are quantised already; empty where they are not."""
    quantized_bits: int = 16
    """Bits a number in quantised files."""
    parameters: int | None = None
    """How many numbers the files hold, where that is known; None goes by the shape."""
    notes: tuple[str, ...] = ()

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All linear layers of a layer, in their order."""
        return self.attention + self.mlp

    @property
    def embedding(self) -> int:
        """Numbers of the embeddings of tokens."""
        return self.vocabulary * self.hidden

    @property
    def outputs(self) -> int:
        """Numbers that the head makes of a token."""
        return 1 if self.scored else self.vocabulary

    @property
    def head(self) -> int:
        """Numbers of the output head, whether it is the embeddings or not."""
        return self.outputs * self.hidden

    @property
    def norm_size(self) -> int:
        """Numbers of one norm."""
        return self.norm_weights * self.hidden

    def layer_small(self) -> int:
        """Numbers of a layer that are in no linear layer's weight: norms and biases."""
        small = self.norms * self.norm_size + sum(m.outputs for m in self.linears if m.bias)
        if self.query_norm == "head":
            small += 2 * self.head_dim
        elif self.query_norm == "whole":
            small += (self.heads + self.kv_heads) * self.head_dim
        return small

    def layer_size(self) -> int:
        """Numbers of a layer."""
        return sum(m.weight for m in self.linears) + self.expert_numbers + self.layer_small()

    def outside_size(self) -> int:
        """Numbers outside of the layers: embeddings, head, the last norm."""
        outside = self.embedding + (0 if self.tied else self.head) + self.positions * self.hidden
        outside += self.norm_size * (2 if self.embedding_norm else 1)
        return outside + (self.vocabulary if self.head_bias else 0)

    def size(self) -> int:
        """Numbers of the whole model."""
        return self.parameters or self.layers * self.layer_size() + self.outside_size()
