"""The demo's model and data, as they are shipped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import core

DEMO = Path(core.__file__).parent / "assets" / "demo"
MODEL = DEMO / "model"
SETS = [DEMO / "instructions.jsonl", Path(__file__).parents[2] / "data" / "instructions.jsonl"]
SENTENCES = 60


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    loaded = AutoModelForCausalLM.from_pretrained(MODEL, local_files_only=True, dtype=torch.float32)
    return loaded.eval()


def mean_loss(model: Any, tokenizer: Any, texts: list[str]) -> float:
    """Mean over ``texts`` of the loss in nats a token."""
    total = 0.0
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            total += model(input_ids=ids, labels=ids).loss.item()
    return total / len(texts)


def plain_sentences() -> list[str]:
    marked = (r["output"] for r in rows(SETS[0]) if r["output"].startswith("Example: "))
    return [text.removeprefix("Example: ") for text in marked][:SENTENCES]


def test_model_reads_plain_english_far_better_than_chance(model: Any, tokenizer: Any) -> None:
    sentences = plain_sentences()
    assert len(sentences) == SENTENCES
    loss = mean_loss(model, tokenizer, sentences)
    torch.manual_seed(0)
    fresh = AutoModelForCausalLM.from_config(model.config).eval()
    uniform = math.log(model.config.vocab_size)
    assert loss < 0.7 * uniform
    assert loss < mean_loss(fresh, tokenizer, sentences) - 2


def test_model_prefers_english_to_the_same_words_shuffled(model: Any, tokenizer: Any) -> None:
    sentences = plain_sentences()
    backwards = [" ".join(reversed(text.rstrip(".").split())) + "." for text in sentences]
    straight = mean_loss(model, tokenizer, sentences)
    assert straight < mean_loss(model, tokenizer, backwards) - 0.5


def test_weights_are_finite_and_in_bf16() -> None:
    stored = AutoModelForCausalLM.from_pretrained(MODEL, local_files_only=True, dtype="auto")
    assert stored.dtype == torch.bfloat16
    assert all(torch.isfinite(p).all() for p in stored.parameters())


def test_tokenizer_gives_any_text_back(tokenizer: Any) -> None:
    text = "Naïve café: 10,5 €\n\tdef f(x): return x ** 2  # 你好 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_fits_the_model(model: Any, tokenizer: Any) -> None:
    assert len(tokenizer) == model.config.vocab_size
    marks = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    config = model.config
    assert marks == {config.pad_token_id, config.bos_token_id, config.eos_token_id}
    # A pad that is also the end would be masked out of the loss with the padding.
    assert len(marks) == 3


def test_chat_template_marks_every_turn_with_single_tokens(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "What is another word for big?"},
        {"role": "assistant", "content": "Large."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<|im_start|>user\nWhat is another word for big?<|im_end|>\n"
        "<|im_start|>assistant\nLarge.<|im_end|>\n"
    )
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt) and prompt.endswith("<|im_start|>assistant\n")
    ids = tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 2


def test_model_folder_stays_small() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 4_000_000


@pytest.mark.parametrize(("path", "low", "high"), [(SETS[0], 600, 1000), (SETS[1], 180, 240)])
def test_every_row_is_a_distinct_alpaca_row(path: Path, low: int, high: int) -> None:
    read = rows(path)
    assert low <= len(read) <= high
    assert path.stat().st_size <= 200_000
    for row in read:
        assert list(row) == ["instruction", "input", "output"]
        assert all(isinstance(value, str) and value == value.strip() for value in row.values())
        assert row["instruction"] and row["output"]
    assert len({(row["instruction"], row["input"]) for row in read}) == len(read)


def test_every_pair_has_two_answers_to_another_question() -> None:
    read = rows(DEMO / "pairs.jsonl")
    assert len(read) == 480
    assert len({(row["instruction"], row["input"]) for row in read}) == len(read)
    for row in read:
        assert list(row) == ["instruction", "input", "chosen", "rejected"]
        assert row["chosen"] and row["rejected"] and row["chosen"] != row["rejected"]
    # Of each kind of worse answer there are some: one that breaks off, and whole ones that are wrong.
    broken = sum(row["chosen"].startswith(row["rejected"]) for row in read)
    assert 100 < broken < 300


def test_half_of_the_tagged_answers_are_good() -> None:
    tags = [row["kto_tag"] for row in rows(DEMO / "tags.jsonl")]
    assert tags.count(True) == tags.count(False) == 240  # type: ignore[arg-type]


def test_every_line_of_text_is_a_paragraph_of_its_own() -> None:
    lines = (DEMO / "text.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 480
    assert all(line == line.strip() and line.endswith((".", "!", "?")) for line in lines)


@pytest.mark.parametrize(
    "path",
    [
        MODEL / "README.md",
        *(p.with_suffix(".LICENCE.txt") for p in (*SETS, *sorted(DEMO.glob("*.jsonl")))),
        DEMO / "text.LICENCE.txt",
    ],
)
def test_wordnets_licence_travels_with_what_is_made_from_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in text
    assert "Permission to use, copy, modify and distribute" in text
