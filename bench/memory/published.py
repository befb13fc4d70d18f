"""The shapes of published models that others have measured, as their config.json has them."""

from typing import Any

_LLAMA: dict[str, Any] = {"model_type": "llama", "tie_word_embeddings": False}
_QWEN: dict[str, Any] = {
    "model_type": "qwen2", "max_position_embeddings": 32768, "vocab_size": 151936,
}  # fmt: skip
_QWEN3: dict[str, Any] = {**_QWEN, "model_type": "qwen3", "head_dim": 128}
_SMOLLM2: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 49152, "max_position_embeddings": 8192,
}  # fmt: skip
_PHI: dict[str, Any] = {"model_type": "phi", "max_position_embeddings": 2048, "vocab_size": 51200}


def _shape(
    base: dict[str, Any],
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads if kv_heads is None else kv_heads,
    }
    return {"tie_word_embeddings": True, **base, **sizes, **more}


SHAPES: dict[str, dict[str, Any]] = {
    "qwen2-0.5b": _shape(_QWEN, 896, 4864, 24, 14, 2),
    "qwen2-1.5b": _shape(_QWEN, 1536, 8960, 28, 12, 2),
    "qwen2-7b": _shape(_QWEN, 3584, 18944, 28, 28, 4, vocab_size=152064, tie_word_embeddings=False),
    "qwen2.5-3b": _shape(_QWEN, 2048, 11008, 36, 16, 2),
    "qwen1.5-0.5b": _shape(_QWEN, 1024, 2816, 24, 16),
    "qwen1.5-1.8b": _shape(_QWEN, 2048, 5504, 24, 16, tie_word_embeddings=False),
    "qwen3-0.6b": _shape(_QWEN3, 1024, 3072, 28, 16, 8),
    "qwen3-1.7b": _shape(_QWEN3, 2048, 6144, 28, 16, 8),
    "qwen3-4b": _shape(_QWEN3, 2560, 9728, 36, 32, 8),
    "smollm2-135m": _shape(_SMOLLM2, 576, 1536, 30, 9, 3),
    "smollm2-360m": _shape(_SMOLLM2, 960, 2560, 32, 15, 5),
    "smollm2-1.7b": _shape(_SMOLLM2, 2048, 8192, 24, 32),
    "tinyllama-1.1b": _shape(
        _LLAMA, 2048, 5632, 22, 32, 4, vocab_size=32000, max_position_embeddings=2048
    ),
    "deepseek-1.3b": _shape(
        _LLAMA, 2048, 5504, 24, 16, vocab_size=32256, max_position_embeddings=16384
    ),
    "llama3.2-1b": _shape(
        {"model_type": "llama"}, 2048, 8192, 16, 32, 8, vocab_size=128256, head_dim=64,
        max_position_embeddings=131072,
    ),
    "llama3.2-3b": _shape(
        {"model_type": "llama"}, 3072, 8192, 28, 24, 8, vocab_size=128256, head_dim=128,
        max_position_embeddings=131072,
    ),
    "llama2-7b": _shape(
        _LLAMA, 4096, 11008, 32, 32, vocab_size=32000, max_position_embeddings=4096
    ),
    "llama3-8b": _shape(
        _LLAMA, 4096, 14336, 32, 32, 8, vocab_size=128256, max_position_embeddings=8192
    ),
    "mistral-7b": _shape(
        {"model_type": "mistral", "sliding_window": None, "tie_word_embeddings": False}, 4096, 14336,
        32, 32, 8, vocab_size=32768, max_position_embeddings=32768,
    ),
    "phi-1.5": _shape(_PHI, 2048, 8192, 24, 32, partial_rotary_factor=0.5, tie_word_embeddings=False),
    "phi-2": _shape(_PHI, 2560, 10240, 32, 32, partial_rotary_factor=0.4, tie_word_embeddings=False),
    "phi-3-mini": _shape(
        {"model_type": "phi3", "vocab_size": 32064, "pad_token_id": 32000}, 3072, 8192, 32, 32,
        max_position_embeddings=4096, tie_word_embeddings=False,
    ),
    "gpt2": {"model_type": "gpt2"},
}  # fmt: skip

ALIASES = {
    "qwen2.5-0.5b": "qwen2-0.5b",
    "qwen2.5-1.5b": "qwen2-1.5b",
    "qwen2.5-7b": "qwen2-7b",
    "deepseek-coder-1.3b": "deepseek-1.3b",
    "phi-1": "phi-1.5",
    "phi2": "phi-2",
}
"""Other names of the same shapes."""


def shape(name: str) -> dict[str, Any]:
    """The config.json of a published model; who published it, and whether it is an instruct version, do not matter.

    Raises:
        KeyError: it is not among those that are known.
    """
    key = name.lower().split("/")[-1].removesuffix("-instruct")
    if key.startswith("llama-"):
        key = key.replace("-", "", 1)
    return SHAPES[ALIASES.get(key, key)]
