"""Shapes of published models, as config.json says them: what the memory benches forecast."""

from collections.abc import Mapping

Config = Mapping[str, str | int | float | bool]


def _llama(
    hidden: int,
    layers: int,
    heads: int,
    kv: int,
    inner: int,
    words: int,
    *,
    tied: bool = False,
    **more: str | int | float | bool,
) -> Config:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "vocab_size": words,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32768,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
    }


SHAPES: dict[str, Config] = {
    "gpt2-124m": {
        "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 8192,
    },
    "smollm2-135m": _llama(576, 30, 9, 3, 1536, 49152, tied=True),
    "qwen2.5-0.5b": _llama(896, 24, 14, 2, 4864, 151936, tied=True, model_type="qwen2"),
    "qwen3-0.6b": _llama(1024, 28, 16, 8, 3072, 151936, tied=True, model_type="qwen3", head_dim=128),
    "tinyllama-1.1b": _llama(2048, 22, 32, 4, 5632, 32000),
    "llama3.2-1b": _llama(2048, 16, 32, 8, 8192, 128256, tied=True, head_dim=64),
    "gemma3-1b": _llama(
        1152, 26, 4, 1, 6912, 262144, tied=True, model_type="gemma3_text", head_dim=256,
        hidden_activation="gelu_pytorch_tanh", sliding_window=512,
    ),
    "pythia-1.4b": {
        "model_type": "gpt_neox", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 8192, "vocab_size": 50304, "max_position_embeddings": 8192, "hidden_act": "gelu",
        "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0,
    },
    "smollm2-1.7b": _llama(2048, 24, 32, 32, 8192, 49152, tied=True),
    "gemma-2b": _llama(
        2048, 18, 8, 1, 16384, 256000, tied=True, model_type="gemma", head_dim=256,
        hidden_activation="gelu_pytorch_tanh",
    ),
    "phi3-3.8b": _llama(3072, 32, 32, 32, 8192, 32064, model_type="phi3", original_max_position_embeddings=32768),
    "llama2-7b": _llama(4096, 32, 32, 32, 11008, 32000),
    "mistral-7b": _llama(4096, 32, 32, 8, 14336, 32768, model_type="mistral", head_dim=128),
    "llama3-8b": _llama(4096, 32, 32, 8, 14336, 128256),
    "qwen2.5-14b": _llama(5120, 48, 40, 8, 13824, 152064, model_type="qwen2"),
    "qwen2.5-32b": _llama(5120, 64, 40, 8, 27648, 152064, model_type="qwen2"),
    "llama3-70b": _llama(8192, 80, 64, 8, 28672, 128256),
}  # fmt: skip
"""From 0.1 to 70 billion parameters."""
