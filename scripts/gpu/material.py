"""A program: builds a Llama with random weights, and rows of a known length, in a folder.

`python material.py FOLDER SIZE ROWS`. The tokenizer is the demo model's; the rows are the demo's answers, joined to
some 2,000 tokens each. It runs apart, so that the process that checks a GPU holds no torch and no CUDA context.
"""

import json
import random
import sys
from itertools import cycle
from pathlib import Path

CHARACTERS = 9_000
"""Of a row: the demo's tokenizer makes about one token of four characters."""
SIZES = {"small": (128, 352, 4, 4), "large": (1024, 2816, 16, 16)}
"""Hidden size, the MLP's size, layers, attention heads. `large` has 0.21 billion parameters."""


def build_model(demo: Path, folder: Path, size: str) -> None:
    """Save a Llama of one of SIZES with random weights (bf16, seeded) and the tokenizer of `demo`."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(demo)
    hidden, inner, layers, heads = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(demo: Path, file: Path, rows: int, characters: int = CHARACTERS) -> None:
    """Write `rows` alpaca rows, each of `characters` characters at least, to a .jsonl file."""
    answers = [json.loads(line)["output"] for line in demo.read_text().splitlines()]
    random.Random(0).shuffle(answers)
    endless = cycle(answers)
    with file.open("w") as out:
        for number in range(rows):
            text = ""
            while len(text) < characters:
                text += next(endless) + " "
            out.write(json.dumps({"instruction": f"Text {number}.", "output": text}) + "\n")


def main(folder: Path, size: str, rows: int) -> None:
    root = Path(__file__).resolve().parents[2] / "core" / "assets" / "demo"
    build_model(root / "model", folder / "model", size)
    write_rows(root / "instructions.jsonl", folder / "rows.jsonl", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
