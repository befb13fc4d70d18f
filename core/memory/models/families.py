"""How the families of decoders that transformers has spell their shape in config.json.

Each reader follows the modeling file of its family (transformers 5): names of linear layers, biases, norms.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import structs

from core.memory.models.shape import Architecture, Linear

Sizes = Mapping[str, Any]


def _pick(config: Sizes, *names: str, default: int | None = None) -> int:
    """The first of `names` that is set.

    Raises:
        KeyError: none is, and there is no default.
    """
    for name in names:
        value = config.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}, not a number")
            return int(value)
    if default is None:
        raise KeyError(names[0])
    return default


def _rate(config: Sizes, *names: str) -> float:
    value = next((config[n] for n in names if config.get(n) is not None), 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def decoder(config: Sizes, **known: Any) -> Architecture:
    """A decoder with separate queries, keys and values and a gated feed-forward part, as Llama has it.

    `known` overrides what follows from the config.
    """
    hidden = _pick(config, "hidden_size", "n_embd", "d_model", "dim")
    heads = _pick(config, "num_attention_heads", "n_head", "n_heads")
    kv_heads = _pick(config, "num_key_value_heads", "n_kv_heads", default=heads)
    head_dim = _pick(config, "head_dim", default=hidden // heads)
    intermediate = _pick(config, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    bias = bool(config.get("attention_bias", False))
    mlp_bias = bool(config.get("mlp_bias", False))
    activation = str(config.get("hidden_act") or config.get("hidden_activation") or "silu")
    shape: dict[str, Any] = {
        "kind": "llama-like",
        "model_type": str(config.get("model_type") or ""),
        "hidden": hidden,
        "layers": _pick(config, "num_hidden_layers", "n_layer", "n_layers"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate": intermediate,
        "vocabulary": _pick(config, "vocab_size"),
        "tied": bool(config.get("tie_word_embeddings", False)),
        "attention": separate_attention(hidden, heads * head_dim, kv_heads * head_dim, bias, bias),
        "mlp": (
            Linear("gate_proj", hidden, intermediate, mlp_bias),
            Linear("up_proj", hidden, intermediate, mlp_bias),
            Linear("down_proj", intermediate, hidden, mlp_bias),
        ),
        "gated": True,
        "activation": activation,
        "fused_activation": activation not in UNFUSED,
        "attention_dropout": _rate(config, "attention_dropout"),
    }
    return Architecture(**(shape | _window(config) | known))


UNFUSED = ("gelu_new", "gelu_fast", "quick_gelu")
"""Activations that transformers computes in several operations, each of which saves what it needs."""


def separate_attention(
    hidden: int, queries: int, keys: int, bias: bool, out_bias: bool, out: str = "o_proj"
) -> tuple[Linear, ...]:
    """Attention with a projection of its own for queries, keys and values; widths are numbers a token."""
    return (
        Linear("q_proj", hidden, queries, bias),
        Linear("k_proj", hidden, keys, bias),
        Linear("v_proj", hidden, keys, bias),
        Linear(out, queries, hidden, out_bias),
    )


def _window(config: Sizes) -> dict[str, Any]:
    """What the config says of sliding windows: how far, and in which share of the layers."""
    window = config.get("sliding_window")
    if not isinstance(window, int) or window < 1 or config.get("use_sliding_window") is False:
        return {}
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and kinds:
        share = sum(k == "sliding_attention" for k in kinds) / len(kinds)
    else:
        pattern = config.get("sliding_window_pattern")
        share = 1 - 1 / pattern if isinstance(pattern, int) and pattern > 1 else 1.0
    return {"window": window, "windowed": share}


def two_layers(
    hidden: int, inner: int, bias: bool, up: str = "fc1", down: str = "fc2"
) -> tuple[Linear, ...]:
    """A feed-forward part of two layers, without a gate."""
    return (Linear(up, hidden, inner, bias), Linear(down, inner, hidden, bias))


def _fused(
    hidden: int, width: int, bias: bool, name: str, out: str, inner: int
) -> tuple[Linear, ...]:
    """Attention whose queries, keys and values come from one projection of `width`."""
    return (Linear(name, hidden, width, bias), Linear(out, inner, hidden, bias))


def _qwen2(config: Sizes) -> Architecture:
    base = decoder(config)
    width, keys = base.heads * base.head_dim, base.kv_heads * base.head_dim
    return decoder(config, attention=separate_attention(base.hidden, width, keys, True, False))


def _qwen3(config: Sizes) -> Architecture:
    return decoder({"head_dim": 128, **config}, query_norm="head")


def _granite(config: Sizes) -> Architecture:
    return decoder(config, residual_scale=True, logit_scale=True)


def _gemma(config: Sizes, **known: Any) -> Architecture:
    activation = str(config.get("hidden_activation") or "gelu_pytorch_tanh")
    filled = {"head_dim": 256, "tie_word_embeddings": True, **config, "hidden_act": activation}
    return decoder(filled, norm="rms-fp32", **known)


def _gemma2(config: Sizes) -> Architecture:
    capped = config.get("attn_logit_softcapping", 50.0) is not None
    logits = config.get("final_logit_softcapping", 30.0) is not None
    filled = {"sliding_window": 4096, "sliding_window_pattern": 2, **config}
    return _gemma(filled, norms=4, score_cap=capped, logit_cap=logits)


def _gemma3(config: Sizes) -> Architecture:
    logits = config.get("final_logit_softcapping") is not None
    filled = {"sliding_window": 4096, "sliding_window_pattern": 6, **config}
    return _gemma(filled, norms=4, query_norm="head", logit_cap=logits)


def _phi3(config: Sizes) -> Architecture:
    base = decoder(config)
    inner = base.heads * base.head_dim
    width = inner + 2 * base.kv_heads * base.head_dim
    return decoder(
        config,
        attention=_fused(base.hidden, width, False, "qkv_proj", "o_proj", inner),
        mlp=(
            Linear("gate_up_proj", base.hidden, 2 * base.intermediate),
            Linear("down_proj", base.intermediate, base.hidden),
        ),
        dropout=_rate(config, "resid_pdrop"),
    )


def _olmo(config: Sizes) -> Architecture:
    return decoder(config, norm="layer", norm_weights=0)


def _olmo2(config: Sizes) -> Architecture:
    return decoder(config, norm_first=False, query_norm="whole")


def _stablelm(config: Sizes) -> Architecture:
    base = decoder(config)
    width, keys = base.heads * base.head_dim, base.kv_heads * base.head_dim
    bias = bool(config.get("use_qkv_bias", False))
    parallel = bool(config.get("use_parallel_residual", False))
    return decoder(
        config,
        attention=separate_attention(base.hidden, width, keys, bias, False),
        norm="layer",
        norm_weights=2,
        norms=1 if parallel else 2,
        parallel=parallel,
        query_norm="head" if config.get("qk_layernorm") else "none",
        dropout=_rate(config, "hidden_dropout"),
    )


def _starcoder2(config: Sizes) -> Architecture:
    base = decoder(config)
    width, keys = base.heads * base.head_dim, base.kv_heads * base.head_dim
    bias = bool(config.get("use_bias", True))
    return decoder(
        {"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True, **config},
        attention=separate_attention(base.hidden, width, keys, bias, bias),
        mlp=two_layers(base.hidden, base.intermediate, bias, "c_fc", "c_proj"),
        gated=False,
        norm="layer",
        norm_weights=2,
        dropout=_rate(config, "residual_dropout"),
    )


def _cohere(config: Sizes) -> Architecture:
    filled = {"tie_word_embeddings": True, **config}
    query_norm = "head" if config.get("use_qk_norm") else "none"
    return decoder(
        filled, norm="rms-fp32", norms=1, parallel=True, logit_scale=True, query_norm=query_norm
    )


def _phi(config: Sizes) -> Architecture:
    base = decoder(config)
    width, keys = base.heads * base.head_dim, base.kv_heads * base.head_dim
    return decoder(
        {"hidden_act": "gelu_new", **config},
        attention=separate_attention(base.hidden, width, keys, True, True, out="dense"),
        mlp=two_layers(base.hidden, base.intermediate, True),
        gated=False,
        norm="layer",
        norm_weights=2,
        norms=1,
        parallel=True,
        head_bias=True,
        dropout=_rate(config, "resid_pdrop"),
    )


def _gpt_neox(config: Sizes) -> Architecture:
    base = decoder(config)
    bias = bool(config.get("attention_bias", True))
    return decoder(
        {"hidden_act": "gelu", **config},
        kind="gpt2-like",
        attention=_fused(
            base.hidden, 3 * base.hidden, bias, "query_key_value", "dense", base.hidden
        ),
        mlp=two_layers(base.hidden, base.intermediate, True, "dense_h_to_4h", "dense_4h_to_h"),
        gated=False,
        norm="layer",
        norm_weights=2,
        parallel=bool(config.get("use_parallel_residual", True)),
        dropout=_rate(config, "hidden_dropout"),
    )


def _falcon(config: Sizes) -> Architecture:
    new = bool(config.get("new_decoder_architecture", False))
    heads = _pick(config, "num_attention_heads", "n_head")
    if new:
        kv_heads = _pick(config, "num_kv_heads", "n_head_kv", default=heads)
    else:
        kv_heads = 1 if config.get("multi_query", True) else heads
    base = decoder({"tie_word_embeddings": True, **config, "num_key_value_heads": kv_heads})
    bias = bool(config.get("bias", False))
    parallel = new or bool(config.get("parallel_attn", True))
    inner = _pick(config, "ffn_hidden_size", default=4 * base.hidden)
    width = (heads + 2 * kv_heads) * base.head_dim
    two_norms = new and config.get("num_ln_in_parallel_attn") != 1
    return structs.replace(
        base,
        kind="gpt2-like",
        attention=_fused(base.hidden, width, bias, "query_key_value", "dense", base.hidden),
        mlp=two_layers(base.hidden, inner, bias, "dense_h_to_4h", "dense_4h_to_h"),
        intermediate=inner,
        activation="gelu",
        gated=False,
        norm="layer",
        norm_weights=2,
        norms=2 if two_norms or not parallel else 1,
        parallel=parallel,
        rotary=not config.get("alibi", False),
        dropout=_rate(config, "hidden_dropout"),
    )


def _gpt2(config: Sizes) -> Architecture:
    activation = str(config.get("activation_function") or "gelu_new")
    filled = {"tie_word_embeddings": True, **config, "hidden_act": activation}
    base = decoder(filled)
    keys = base.hidden
    if config.get("model_type") == "gpt_bigcode" and config.get("multi_query", True):
        filled["num_key_value_heads"] = 1
        keys = base.head_dim
    return decoder(
        filled,
        kind="gpt2-like",
        attention=_fused(
            base.hidden, base.hidden + 2 * keys, True, "c_attn", "c_proj", base.hidden
        ),
        mlp=two_layers(base.hidden, base.intermediate, True, "c_fc", "c_proj"),
        gated=False,
        norm="layer",
        norm_weights=2,
        rotary=False,
        positions=_pick(config, "n_positions", "max_position_embeddings"),
        dropout=_rate({"resid_pdrop": 0.1, **config}, "resid_pdrop"),
        attention_dropout=_rate({"attn_pdrop": 0.1, **config}, "attn_pdrop"),
    )


def _opt(config: Sizes) -> Architecture:
    base = decoder(config)
    bias = bool(config.get("enable_bias", True))
    width = base.hidden
    return decoder(
        {"tie_word_embeddings": True, **config, "hidden_act": "relu"},
        kind="gpt2-like",
        attention=separate_attention(base.hidden, width, width, bias, bias, out="out_proj"),
        mlp=two_layers(base.hidden, base.intermediate, bias),
        gated=False,
        norm="layer",
        norm_weights=2,
        rotary=False,
        positions=_pick(config, "max_position_embeddings") + 2,
        dropout=_rate({"dropout": 0.1, **config}, "dropout"),
    )


def _gptj(config: Sizes) -> Architecture:
    activation = str(config.get("activation_function") or "gelu_new")
    base = decoder(config)
    return decoder(
        {**config, "hidden_act": activation},
        kind="gpt2-like",
        attention=separate_attention(
            base.hidden, base.hidden, base.hidden, False, False, out="out_proj"
        ),
        mlp=two_layers(base.hidden, base.intermediate, True, "fc_in", "fc_out"),
        eager=True,
        gated=False,
        norm="layer",
        norm_weights=2,
        norms=1,
        parallel=True,
        head_bias=True,
        dropout=_rate(config, "resid_pdrop"),
    )


def _bloom(config: Sizes) -> Architecture:
    base = decoder(config)
    return decoder(
        # Its own GELU saves its input alone.
        {"tie_word_embeddings": True, **config, "hidden_act": "gelu"},
        kind="gpt2-like",
        attention=_fused(
            base.hidden, 3 * base.hidden, True, "query_key_value", "dense", base.hidden
        ),
        mlp=two_layers(base.hidden, 4 * base.hidden, True, "dense_h_to_4h", "dense_4h_to_h"),
        intermediate=4 * base.hidden,
        gated=False,
        norm="layer",
        norm_weights=2,
        rotary=False,
        eager=True,
        embedding_norm=True,
        dropout=_rate(config, "hidden_dropout"),
    )


def _experts(config: Sizes) -> Architecture:
    """A mixture of experts: all of them are held, a few of them compute."""
    many = _pick(config, "num_local_experts", "num_experts", "n_routed_experts")
    active = _pick(config, "num_experts_per_tok", "experts_per_token", default=2)
    inner = _pick(config, "moe_intermediate_size", "intermediate_size")
    shared = _pick(config, "shared_expert_intermediate_size", default=0)
    base = _qwen3(config) if config.get("model_type") == "qwen3_moe" else decoder(config)
    numbers = many * (3 * base.hidden * inner + base.hidden) + 3 * base.hidden * shared
    return structs.replace(
        base,
        kind="llama-like",
        mlp=(),
        intermediate=active * inner + shared,
        experts=many,
        experts_per_token=active,
        expert_numbers=numbers,
        notes=(
            f"The model is a mixture of {many} experts: which of them a token goes through is not known before, so "
            "that this is an estimate. Quantisation and adapters do not reach experts in transformers.",
        ),
    )


def unknown(config: Sizes) -> Architecture:
    """Whatever has the usual names for its sizes."""
    if _pick(config, "num_local_experts", "num_experts", "n_routed_experts", default=0):
        return _experts(config)
    return decoder(config, kind="unknown")


READERS: dict[str, Callable[[Sizes], Architecture]] = {
    **dict.fromkeys(("llama", "mistral", "ministral", "ministral3", "smollm3", "helium"), decoder),
    **dict.fromkeys(("gemma3_text", "gemma3"), _gemma3),
    **dict.fromkeys(("olmo2", "olmo3"), _olmo2),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"), _experts),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _gpt2),
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "granite": _granite,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "phi3": _phi3,
    "phi": _phi,
    "olmo": _olmo,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
    "cohere": _cohere,
    "gpt_neox": _gpt_neox,
    "falcon": _falcon,
    "opt": _opt,
    "gptj": _gptj,
    "bloom": _bloom,
}
"""By model_type."""

OTHER_KINDS = (
    "bert", "roberta", "distilbert", "deberta-v2", "electra", "albert", "t5", "mt5", "bart", "mbart", "whisper",
    "clip", "vit", "siglip", "wav2vec2",
)  # fmt: skip
"""Models that are no decoders of text."""
