"""How a policy draws answers, and how likely it finds them."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from core.params import GenerationTable
from core.train.ppo.policy import Turns, draw, read, without_dropout
from core.train.ppo.values import attach

END, PAD = 1, 0


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, initializer_range=0.3,
        )
    ).eval()  # fmt: skip


def opt() -> Any:
    """Learnt positions that it reads off the mask, no logits_to_keep of old, dropout without modules."""
    torch.manual_seed(0)
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=20, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=32, dropout=0.5, init_std=0.3,
        )
    ).eval()  # fmt: skip


def turns() -> Turns:
    """Two prompts of different length, with answers of different length."""
    return Turns(
        torch.tensor([[PAD, PAD, 5], [6, 7, 8]]), torch.tensor([[0, 0, 1], [1, 1, 1]]),
        torch.tensor([[9, 10, END], [11, END, PAD]]), torch.tensor([[1, 1, 1], [1, 1, 0]]),
    )  # fmt: skip


@pytest.mark.parametrize("make", [llama, opt])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_as_likely_as_the_model_says_of_the_row_alone(
    make: Any, temperature: float
) -> None:
    model = make()
    with torch.no_grad():
        found = read(model, turns(), temperature)
        for row, (prompt, answer) in enumerate((([5], [9, 10, END]), ([6, 7, 8], [11, END]))):
            ids = torch.tensor([prompt + answer])
            told = torch.log_softmax(model(ids).logits[0] / temperature, -1)
            at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            own = [float(told[t, token]) for t, token in zip(at, answer, strict=True)]
            assert found.logprobs[row, : len(answer)].tolist() == pytest.approx(own, abs=1e-5)
            entropy = [float(-(told[t].exp() * told[t]).sum()) for t in at]
            assert found.entropy[row, : len(answer)].tolist() == pytest.approx(entropy, abs=1e-5)
    assert found.hidden.shape == (2, 3, 16)


def drawn(model: Any, seed: int = 0, **sampling: Any) -> Turns:
    given = turns()
    torch.manual_seed(seed)
    table = GenerationTable(**({"max_new_tokens": 6} | sampling))
    with torch.no_grad():
        return draw(model, given.prompts, given.prompt_mask, table, (END, 2), PAD)


def test_an_answer_ends_with_its_first_end() -> None:
    met = set()
    for seed in range(30):
        found = drawn(llama(), seed)
        for ids, mask in zip(found.answers.tolist(), found.mask.tolist(), strict=True):
            length = sum(mask)
            assert mask == [1] * length + [0] * (len(mask) - length)
            ends = [place for place, token in enumerate(ids) if token in (END, 2)]
            assert length == (ends[0] + 1 if ends else len(ids)) <= 6
            assert ids[length:] == [PAD] * (len(ids) - length)
            met.add(ids[length - 1] if ends else None)
    assert met == {END, 2, None}


def test_answers_depend_on_the_random_state_alone() -> None:
    model = llama()
    assert torch.equal(drawn(model, 3).answers, drawn(model, 3).answers)
    assert len({str(drawn(model, seed).answers.tolist()) for seed in range(5)}) > 1


def test_sampling_is_as_the_profile_asks_for() -> None:
    model = llama()
    likeliest = {str(drawn(model, seed, top_k=1).answers.tolist()) for seed in range(5)}
    assert len(likeliest) == 1
    assert {str(drawn(model, seed, top_p=1e-6).answers.tolist()) for seed in range(3)} == likeliest
    assert {str(drawn(model, s, temperature=1e-4).answers.tolist()) for s in range(3)} == likeliest
    own = model.generation_config
    drawn(model)
    assert model.generation_config is own


def test_what_is_drawn_is_as_frequent_as_it_is_likely() -> None:
    """The first token of 4,000 answers against the model's own probabilities."""
    model = llama()
    prompts = torch.full((4000, 1), 5)
    torch.manual_seed(0)
    with torch.no_grad():
        found = draw(
            model, prompts, torch.ones_like(prompts), GenerationTable(max_new_tokens=1), (END,), PAD
        )
        likely = torch.softmax(model(torch.tensor([[5]])).logits[0, -1], -1)
    frequent = torch.bincount(found.answers[:, 0], minlength=20) / 4000
    assert torch.allclose(frequent, likely, atol=0.035)


def test_all_dropout_is_off_also_where_it_has_no_module() -> None:
    model = without_dropout(opt()).train()
    with torch.no_grad():
        assert torch.equal(read(model, turns(), 1.0).logprobs, read(model, turns(), 1.0).logprobs)
    with torch.no_grad():
        noisy = opt().train()
        assert not torch.equal(
            read(noisy, turns(), 1.0).logprobs, read(noisy, turns(), 1.0).logprobs
        )


def test_a_value_head_begins_at_zero_and_is_not_saved_with_the_model(tmp_path: Any) -> None:
    model = llama()
    head = attach(model)
    found = read(model, turns(), 1.0)
    assert head(found.hidden).tolist() == [[0.0] * 3] * 2
    assert sum(name.startswith("value_head.") for name, _ in model.named_parameters()) == 2
    model.save_pretrained(tmp_path)
    again, info = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
