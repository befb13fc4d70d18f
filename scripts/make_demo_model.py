"""Makes the demo's model: a tokenizer and a small Llama, pretrained on WordNet's entries.

Usage, from the project's root (about a quarter of an hour on one CPU core):

    apt-get download wordnet-base && dpkg -x wordnet-base*.deb wordnet
    OMP_NUM_THREADS=1 .venv/bin/python -m scripts.make_demo_model --text wordnet

The text is the Debian package wordnet-base, version 1:3.0-37 (WordNet 3.0, Princeton University);
it is read from the folder given and never downloaded from here.  The same text, seed and versions
of torch and tokenizers on the same kind of CPU give the same model again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.demo_model import bpe, card, pretrain, prose, wordnet

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT = 1200


def main() -> int:
    options = _options()
    shape = pretrain.Shape()
    schedule = replace(pretrain.Schedule(seed=options.seed), steps=options.steps)
    try:
        source = wordnet.load(wordnet.find_folder(options.text))
    except wordnet.SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    documents = [bpe.as_document(p) for p in prose.paragraphs(source, options.seed)]
    held_out, train = documents[:HELD_OUT], documents[HELD_OUT:]
    tokenizer = bpe.train_tokenizer(train, shape.vocab, shape.context)
    stream = _encode(tokenizer, train)
    print(f"{len(train)} paragraphs, {len(stream)} tokens", flush=True)
    marks = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    model = pretrain.build(shape, *marks, seed=options.seed)
    outcome = pretrain.pretrain(model, stream, _encode(tokenizer, held_out), schedule)
    print(f"train loss {outcome.train_loss:.4f}, held-out loss {outcome.held_out_loss:.4f}")
    _save(model, tokenizer, options.output)
    text = card.model_card(shape, schedule, outcome, sum(p.numel() for p in model.parameters()))
    (options.output / "README.md").write_text(text, encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the demo's pretrained model.")
    parser.add_argument("--text", type=Path, nargs="+", required=True, metavar="DIR_OR_FILE")
    parser.add_argument("--output", type=Path, default=ROOT / "core/assets/demo/model")
    parser.add_argument("--seed", type=int, default=pretrain.Schedule.seed)
    parser.add_argument("--steps", type=int, default=pretrain.Schedule.steps)
    return parser.parse_args()


def _encode(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> torch.Tensor:
    """All documents as one stream of token ids (1-D, int64)."""
    rows = tokenizer(documents, add_special_tokens=False)["input_ids"]
    return torch.tensor([token for row in rows for token in row], dtype=torch.int64)


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # safetensors writes for the owner only; a package's files are for everyone.
    (folder / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    sys.exit(main())
