"""A program: builds models of well-known shapes with random weights, and rows that fill any cut-off length.

`python shapes.py FOLDER NAME [NAME ...]`. Each model is FOLDER/NAME; FOLDER/long.jsonl holds the rows. The tokenizer is
the demo model's: its tokens are among the first of every vocabulary. It runs apart, so that the process that checks a
GPU holds no torch and no CUDA context.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gpu.material import write_rows

CHARACTERS = 24_000
"""Of a row: the demo's tokenizer makes about one token of four characters, so that 4096 tokens are always there."""
ROWS = 24

SHAPES: dict[str, dict[str, Any]] = {
    # The shapes of Qwen2.5-0.5B, TinyLlama-1.1B and Llama-2-7B, as their config.json give them.
    "0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "1.1b": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
        "vocab_size": 32000, "tie_word_embeddings": False,
    },
    "7b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "vocab_size": 32000, "tie_word_embeddings": False,
    },
    "tiny": {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 176,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 8192, "tie_word_embeddings": False,
    },
}  # fmt: skip


def build_model(name: str, demo: Path, folder: Path) -> None:
    """Save a model of the shape `name` with random bf16 weights, made on the GPU where there is one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    shape = dict(SHAPES[name])
    config = AutoConfig.for_model(
        shape.pop("model_type"), **shape, max_position_embeddings=4096, dtype="bfloat16"
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model = model.to_empty(device=device).to(torch.bfloat16)
    torch.manual_seed(0)
    for weight in model.parameters():
        # Norms too: what is measured is memory, and random numbers of this size keep a loss finite.
        torch.nn.init.normal_(weight, std=0.02)
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size="4GB")
    AutoTokenizer.from_pretrained(demo).save_pretrained(folder)


def main(folder: Path, names: list[str]) -> None:
    root = Path(__file__).resolve().parents[2] / "core" / "assets" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(root / "instructions.jsonl", folder / "long.jsonl", ROWS, CHARACTERS)
    for name in names:
        build_model(name, root / "model", folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
