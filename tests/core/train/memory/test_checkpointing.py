"""Checkpoints in every n-th layer change what is kept, not what is computed."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from core.train.errors import ModelError
from core.train.memory.checkpointing import checkpoint_activations


def make(kind: str = "llama", layers: int = 5) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_embd=16, n_layer=layers, n_head=2, n_positions=32)
        ).train()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
            num_key_value_heads=2,
        )
    ).train()  # fmt: skip


def learn(model: Any) -> tuple[float, dict[str, Any], int]:
    """Loss, gradients and the bytes that were saved for the backward pass, weights left out."""
    weights = {p.data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        if tensor.data_ptr() not in weights:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    ids = torch.randint(0, 50, (2, 16))
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, sum(saved.values())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("every", "which"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])]
)
def test_every_nth_layer_is_checkpointed_and_computes_the_same(
    kind: str, every: int, which: list[int]
) -> None:
    loss, gradients, _ = learn(make(kind))
    model = make(kind)
    checkpoint_activations(model, every)
    layers = model.model.layers if kind == "llama" else model.transformer.h
    assert [n for n, layer in enumerate(layers) if layer.gradient_checkpointing] == which
    saving = learn(model)
    assert saving[0] == loss
    assert saving[1].keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(saving[1][name], gradient)


def test_the_more_layers_are_checkpointed_the_less_is_kept() -> None:
    kept = []
    for every in (None, 3, 2, 1):
        model = make()
        if every is not None:
            checkpoint_activations(model, every)
        kept.append(learn(model)[2])
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 4


def test_frozen_embeddings_do_not_end_the_backward_pass() -> None:
    model = make()
    checkpoint_activations(model, 2)
    model.requires_grad_(False)
    model.model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    assert list(learn(model)[1]) == ["model.layers.1.mlp.up_proj.weight"]


def test_the_layers_of_a_part_for_images_are_not_counted() -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))
    checkpoint_activations(model, 2)
    layers = model.model.language_model.layers
    assert [layer.gradient_checkpointing for layer in layers] == [True, False, True]


def test_a_model_that_is_checkpointed_as_a_whole_cannot_leave_layers_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make()
    monkeypatch.setattr("transformers.modeling_layers.GradientCheckpointingLayer", torch.nn.LSTM)
    checkpoint_activations(model, 1)
    with pytest.raises(ModelError, match="set it to 1"):
        checkpoint_activations(model, 2)


def test_a_model_without_checkpoints_says_so() -> None:
    model = make()
    type(model).supports_gradient_checkpointing = False
    try:
        with pytest.raises(ModelError, match="its code has no checkpoints"):
            checkpoint_activations(model)
    finally:
        type(model).supports_gradient_checkpointing = True
