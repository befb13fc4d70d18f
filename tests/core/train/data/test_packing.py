"""Rows that are packed fill sequences and compute what they compute apart; models that cannot do that are refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from core.profile import from_document
from core.train.data import packing
from core.train.data.batches import Collator
from core.train.data.examples import IGNORED, Example
from core.train.data.packing import bins, blocks, pack, positions
from core.train.distributed.shares import learnt_tokens, seen_tokens, unpadded
from core.train.errors import SettingsError
from core.train.model import isolation
from core.train.model.isolation import check_apart, check_kind
from core.train.model.source import Source

WORDS = 60
SHAPE: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip


def row(size: int, seed: int) -> Example:
    ids = np.random.default_rng(seed).integers(0, WORDS, size, dtype=np.int32)
    labels = ids.copy()
    labels[: 1 + size // 3] = IGNORED
    return Example(ids, labels)


def llama(attention: str = "sdpa") -> Any:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, attn_implementation=attention))


def gpt2(attention: str = "sdpa") -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=None,
            attn_implementation=attention, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        )
    )  # fmt: skip


def sliding() -> Any:
    return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4))


def opt() -> Any:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=WORDS, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4,
            max_position_embeddings=64, word_embed_proj_dim=32, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )
    )  # fmt: skip


def bloom() -> Any:
    return BloomForCausalLM(
        BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=1, n_head=4, bos_token_id=None, eos_token_id=None)
    )  # fmt: skip


def mamba() -> Any:
    return MambaForCausalLM(
        MambaConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    )  # fmt: skip


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_every_row_is_in_one_sequence_that_has_room_for_it(sizes: list[int]) -> None:
    made = bins(sizes, 30)
    assert sorted(i for members in made for i in members) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in members) <= 30 for members in made)
    assert all(members == sorted(members) for members in made) and made == sorted(made)
    # No two sequences would go into one, so that they are half full at least.
    filled = sorted(sum(sizes[i] for i in members) for members in made)
    assert len(made) == 1 or filled[0] + filled[1] > 30


def test_sequences_of_mixed_rows_are_nearly_full() -> None:
    sizes = np.random.default_rng(0).lognormal(4.5, 0.9, 2000).clip(8, 1024).astype(int).tolist()
    made = bins(sizes, 1024)
    assert sum(sizes) / (len(made) * 1024) > 0.99


def test_rows_are_packed_as_they_come_and_no_more_of_them_are_held_than_a_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "_WINDOW", 8)
    rows = [row(2 + n % 5, n) for n in range(50)]
    taken = 0

    def given() -> Iterator[Example]:
        nonlocal taken
        for one in rows:
            taken += 1
            yield one

    packed = pack(given(), 12)
    first = next(packed)
    assert taken == 8
    assert sum(p.size for p in (first, *packed)) == sum(r.size for r in rows)


@pytest.mark.parametrize("make", [llama, gpt2, sliding])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_compute_what_they_compute_apart(make: Any, attention: str) -> None:
    torch.manual_seed(1)
    model = make() if make is sliding else make(attention)
    rows = [row(size, size) for size in (7, 12, 3, 9, 5, 15)]
    packed = list(pack(rows, 24))
    assert sum(len(p.starts) for p in packed) == 6 > len(packed)
    together = Collator(0, 8)(packed)
    assert "attention_mask" not in together
    apart = Collator(0)(rows)
    learnt = learnt_tokens(together)
    assert learnt == learnt_tokens(apart)
    one, other = (
        model(**batch, num_items_in_batch=learnt, use_cache=False) for batch in (together, apart)
    )
    assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-5)
    seen: dict[bytes, torch.Tensor] = {}
    for number, sequence in enumerate(packed):
        ends = [*sequence.starts[1:], sequence.size]
        for start, end in zip(sequence.starts, ends, strict=True):
            seen[sequence.ids[start:end].tobytes()] = one.logits[number, start:end]
    for number, each in enumerate(rows):
        wanted = other.logits[number, : each.size]
        assert torch.allclose(seen[each.ids.tobytes()], wanted, atol=1e-5)
    one.loss.backward()
    together_gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    other.loss.backward()
    apart_gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(
        torch.allclose(a, b, atol=1e-6)
        for a, b in zip(together_gradients, apart_gradients, strict=True)
    )


def test_without_neat_packing_a_row_sees_those_before_it() -> None:
    torch.manual_seed(1)
    model = llama()
    rows = [row(7, 1), row(9, 2)]
    mixed, neat = list(pack(rows, 16, apart=False)), list(pack(rows, 16))
    assert mixed[0].starts == (0,) and neat[0].starts == (0, 7)
    batch = Collator(0)(mixed)
    assert batch["attention_mask"].sum() == 16
    assert not torch.allclose(
        model(**batch).logits[0, 8:], model(**Collator(0)(neat)).logits[0, 8:], atol=1e-4
    )


@pytest.mark.parametrize("make", [llama, gpt2, sliding])
def test_models_that_keep_rows_apart_are_taken(make: Any) -> None:
    model = make().train()
    check_apart(model, "m")
    assert model.training


@pytest.mark.parametrize(
    ("make", "reason"),
    [(mamba, "takes no positions"), (bloom, "takes no positions"), (opt, "depends on the rows before it")],
)  # fmt: skip
def test_models_that_cannot_keep_rows_apart_are_refused(make: Any, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_apart(make(), "some/model")
    for word in ("some/model", reason, "data.neat_packing = false", "data.packing = false"):
        assert word in str(caught.value)


@pytest.mark.parametrize(("make", "taken"), [(llama, True), (gpt2, True), (mamba, False), (opt, False)])  # fmt: skip
def test_a_kind_of_model_is_refused_by_its_config_alone(
    make: Any, taken: bool, tmp_path: Path
) -> None:
    make().config.save_pretrained(tmp_path)
    profile = from_document(
        {"model": {"model_name_or_path": str(tmp_path)}, "data": {"dataset": "demo"}}
    )
    source = Source(str(tmp_path), (str(tmp_path),))
    before = torch.random.get_rng_state()
    if taken:
        check_kind(profile, source)
    else:
        with pytest.raises(SettingsError, match="would see each other"):
            check_kind(profile, source)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_large_model_is_tried_out_as_a_small_one_of_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = SHAPE | {
        "vocab_size": 128_256, "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8,
    }  # fmt: skip
    LlamaConfig(**shape).save_pretrained(tmp_path)
    tried: list[int] = []

    def check(model: Any, path: str) -> None:
        tried.append(model.num_parameters())
        check_apart(model, path)

    monkeypatch.setattr(isolation, "check_apart", check)
    folder = str(tmp_path)
    profile = from_document({"model": {"model_name_or_path": folder}, "data": {"dataset": "demo"}})
    check_kind(profile, Source(folder, (folder,)))
    assert tried and tried[0] < 20_000_000


def test_tokens_of_packed_batches_are_counted_without_padding() -> None:
    rows = [row(size, size) for size in (7, 12, 3, 9, 5, 2)]
    batch = Collator(0, 8)(list(pack(rows, 20)))
    assert int(unpadded(batch)) == seen_tokens(batch) == 38 < batch["input_ids"].numel()
    plain = Collator(0)(rows)
    assert int(unpadded(plain)) == 38


def test_flash_attention_gets_one_long_row() -> None:
    packed = list(pack([row(size, size) for size in (7, 12, 3, 9)], 20))
    flat = Collator(0, flat=True)(packed)
    assert flat["input_ids"].shape == (1, 31)
    assert (flat["position_ids"] == 0).sum() == 4 and int(unpadded(flat)) == 31
    assert learnt_tokens(flat) == learnt_tokens(Collator(0)(packed))
    alone = Collator(0, flat=True)([row(5, 1), row(3, 2)])
    assert alone["input_ids"].shape == (2, 5) and "attention_mask" in alone


def test_positions_begin_anew_with_each_row() -> None:
    (packed,) = pack([row(3, 1), row(2, 2)], 8)
    assert positions(packed).tolist() == [0, 1, 2, 0, 1]


def text(*ids: int) -> Example:
    tokens = np.array(ids, dtype=np.int32)
    return Example(tokens, tokens.copy())


def test_texts_are_cut_into_blocks_without_a_loss() -> None:
    texts = [text(1, 2, 3, 4, 5), text(6, 7), text(8, 9, 10, 11, 12, 13)]
    made = list(blocks(texts, 4))
    assert [b.ids.tolist() for b in made] == [[1, 2, 3, 4], [6, 7, 8, 9], [10, 11, 12, 13]]
    assert [b.starts for b in made] == [(0,), (0, 2), (0,)]
    assert made[1].labels.tolist() == [IGNORED, 7, IGNORED, 9]
    mixed = list(blocks(texts, 4, apart=False))
    assert [b.ids.tolist() for b in mixed] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert mixed[1].labels.tolist() == [IGNORED, 6, 7, 8] and mixed[1].starts == (0,)


@given(st.lists(st.integers(1, 25), min_size=1, max_size=30), st.integers(8, 12), st.booleans())
def test_blocks_hold_the_texts_in_their_order(sizes: list[int], length: int, apart: bool) -> None:
    numbers = iter(range(1000))
    texts = [text(*(next(numbers) for _ in range(size))) for size in sizes]
    made = list(blocks(texts, length, apart=apart))
    ids = [i for block in made for i in block.ids.tolist()]
    assert ids == sorted(ids) and all(block.size <= length for block in made)
    lost = sum(sizes) - len(ids)
    assert lost <= (sum(-(-size // (length - 1)) + 1 for size in sizes) if apart else 1)
    assert all(block.size >= length - 1 for block in made[:-1])
    for block in made:
        ends = [*block.starts[1:], block.size]
        assert all(end - start >= 2 for start, end in zip(block.starts, ends, strict=True))
