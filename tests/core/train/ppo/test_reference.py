"""Weights that two models have in common are held once, and only those."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from core.train.ppo.reference import reference_of, share_weights

CONFIG = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
WORDS = torch.tensor([[3, 4, 5, 6]])


def policy() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**CONFIG))


def adapted(model: Any, task: str, targets: list[str]) -> Any:
    config = LoraConfig(task_type=task, r=2, target_modules=targets)
    return get_peft_model(model, config)


def judge() -> Any:
    """A reward model whose body is the policy's."""
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(LlamaConfig(**CONFIG, num_labels=1))
    model.model.load_state_dict(policy().model.state_dict())
    return model


def pointers(model: Any) -> set[int]:
    return {p.data_ptr() for p in model.parameters()}


def test_an_adapter_of_the_same_base_brings_only_itself() -> None:
    own = adapted(policy(), "CAUSAL_LM", ["q_proj", "v_proj"])
    other = adapted(judge(), "SEQ_CLS", ["q_proj", "up_proj"]).eval()
    before = other(WORDS).logits
    freed = share_weights(own, other)
    body = sum(p.numel() * 4 for p in policy().model.parameters())
    assert freed == body
    assert torch.equal(other(WORDS).logits, before)
    left = [n for n, p in other.named_parameters() if p.data_ptr() not in pointers(own)]
    assert left and all("lora_" in name or "score" in name for name in left)


def test_weights_that_train_or_differ_are_not_shared() -> None:
    own, other = policy(), judge()
    assert share_weights(own, other) == 0
    own.requires_grad_(False)
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    share_weights(own, other)
    changed = other.model.layers[1].mlp.up_proj.weight.data_ptr()
    assert changed not in pointers(own)
    assert other.model.layers[0].mlp.up_proj.weight.data_ptr() in pointers(own)


def test_beside_frozen_layers_a_reference_is_only_as_large_as_those_that_train() -> None:
    own, copy = policy(), policy()
    own.requires_grad_(False)
    own.model.layers[1].requires_grad_(True)
    share_weights(own, copy)
    with torch.no_grad():
        for weight in own.model.layers[1].parameters():
            weight.add_(1.0)
    assert torch.equal(copy(WORDS).logits, policy()(WORDS).logits)


def test_the_reference_of_adapters_is_the_model_without_them() -> None:
    own = adapted(policy(), "CAUSAL_LM", ["q_proj"])
    with torch.no_grad():
        for name, weight in own.named_parameters():
            if "lora_B" in name:
                weight.add_(1.0)
    plain = policy()(WORDS).logits
    with reference_of(own, None) as causal:
        assert torch.allclose(causal(WORDS).logits, plain)
    assert not torch.allclose(own(WORDS).logits, plain)
    copy = policy()
    with reference_of(own, copy) as causal:
        assert causal is copy
