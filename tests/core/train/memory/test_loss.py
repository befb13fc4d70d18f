"""The loss in chunks is the loss, and its gradients are the gradients, for every kind of head."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, MixtralConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from core.train.errors import ModelError
from core.train.memory.loss import chunk_loss

VOCABULARY = 97
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    "max_position_embeddings": 64, "attention_dropout": 0.0,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "attn_pdrop": 0.0,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0,
}  # fmt: skip
OPT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "dropout": 0.0, "word_embed_proj_dim": 16,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "untied head": ("llama", SMALL),
    "tied embeddings": ("llama", SMALL | {"tie_word_embeddings": True}),
    "soft-capped logits": ("gemma2", SMALL | {"final_logit_softcapping": 2.0}),
    "multiplied logits": ("cohere", SMALL | {"logit_scale": 0.25}),
    "divided logits": ("granite", SMALL | {"logits_scaling": 8.0}),
    "experts": ("mixtral", SMALL | {"num_local_experts": 4}),
    "head with a bias": ("phi", SMALL),
    "own names": ("gpt2", GPT2),
    "decoder inside of the model": ("opt", OPT),
}


def make(kind: str) -> Any:
    name, settings = KINDS[kind]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**settings)).train()


def batch() -> dict[str, Any]:
    """Two rows of 12 tokens, one padded; some tokens are not learnt."""
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (2, 12))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[0, :5] = -100
    labels[1, 9:], mask[1, 9:], ids[1, 9:] = -100, 0, 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def learn(model: Any, **settings: Any) -> tuple[float, dict[str, Any]]:
    """The loss and the gradients of one batch."""
    model.zero_grad()
    loss = model(**batch(), **settings).loss
    loss.backward()
    return float(loss), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


def assert_same(ours: tuple[float, Any], plain: tuple[float, Any]) -> None:
    assert ours[0] == pytest.approx(plain[0], rel=1e-6)
    assert ours[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [5, 1000])
def test_chunks_give_the_same_loss_and_gradients(kind: str, tokens: int) -> None:
    model = make(kind)
    plain = learn(model), learn(model, num_items_in_batch=torch.tensor(31))
    chunk_loss(model, tokens)
    assert_same(learn(model), plain[0])
    assert_same(learn(model, num_items_in_batch=torch.tensor(31)), plain[1])
    assert_same(learn(model, num_items_in_batch=31), plain[1])


@pytest.mark.parametrize(
    "kind", ["untied head", "soft-capped logits", "decoder inside of the model"]
)
def test_an_evaluation_in_chunks_gives_the_same_loss(kind: str) -> None:
    model = make(kind).eval()
    with torch.no_grad():
        plain = float(model(**batch()).loss)
        chunk_loss(model, 5)
        output = model(**batch())
    assert float(output.loss) == pytest.approx(plain, rel=1e-6)
    assert output.logits is None


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": ["lm_head", "down_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_adapters_wherever_they_are_get_the_same_gradients(settings: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    def adapted(chunks: int | None) -> Any:
        model = make("untied head")
        if chunks:
            chunk_loss(model, chunks)
        torch.manual_seed(2)
        config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, **settings)
        return get_peft_model(model, config).train()

    assert_same(learn(adapted(5)), learn(adapted(None)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["tied embeddings", "soft-capped logits"])
def test_mixed_precision_gets_the_same_up_to_its_rounding(kind: str, dtype: Any) -> None:
    model = make(kind)

    def mixed() -> tuple[float, dict[str, Any]]:
        with torch.autocast("cpu", dtype=dtype):
            return learn(model)

    plain = mixed()
    chunk_loss(model, 5)
    ours = mixed()
    assert ours[0] == pytest.approx(plain[0], rel=1e-6)
    for name, gradient in plain[1].items():
        assert (ours[1][name] - gradient).norm() < 0.02 * gradient.norm()


def test_chunks_work_with_gradient_checkpointing_of_the_layers() -> None:
    from core.train.memory.checkpointing import checkpoint_activations

    model = make("untied head")
    plain = learn(model)
    checkpoint_activations(model)
    chunk_loss(model, 7)
    assert_same(learn(model), plain)


class Sizes(TorchDispatchMode):  # type: ignore[misc]
    """Notes the largest tensor that is made, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.untyped_storage().nbytes() // leaf.itemsize)
        return made


@pytest.mark.parametrize("training", [True, False])
def test_no_more_scores_than_a_chunk_s_exist_at_once(training: bool) -> None:
    name, settings = KINDS["tied embeddings"]
    model = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[name](**settings | {"hidden_size": 8, "intermediate_size": 8, "head_dim": 2})
    )
    model.requires_grad_(False)
    model.model.layers[0].requires_grad_(True)
    model.train(training)
    whole = 2 * 12 * VOCABULARY

    def largest() -> int:
        with Sizes() as sizes, torch.set_grad_enabled(training):
            loss = model(**batch()).loss
            if training:
                loss.backward()
        return sizes.largest

    assert largest() >= whole
    chunk_loss(model, 5)
    # The embeddings themselves are the largest that is left, as long as a chunk is small.
    assert largest() <= VOCABULARY * 8


def test_without_labels_the_model_gives_its_scores() -> None:
    model = make("untied head").eval()
    chunk_loss(model, 5)
    inputs = batch()
    inputs.pop("labels")
    assert model(**inputs).logits.shape == (2, 12, VOCABULARY)


def test_the_decoder_is_as_it_was_after_a_forward_that_fails() -> None:
    model = make("untied head")
    chunk_loss(model, 5)
    wrong = batch() | {"input_ids": torch.full((2, 12), 10_000)}
    with pytest.raises(IndexError):
        model(**wrong)
    assert "forward" not in vars(model.model)
    assert model(**batch()).loss > 0


def test_chunks_need_no_real_tensors() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = make("untied head")
        chunk_loss(model, 5)
        model(**batch()).loss.backward()
        assert model.lm_head.weight.grad.shape == (VOCABULARY, 32)


def test_a_router_s_own_loss_cannot_be_chunked() -> None:
    config = MixtralConfig(**SMALL | {"num_local_experts": 2, "output_router_logits": True})
    with pytest.raises(ModelError, match=r"loss_chunk_tokens does not work.*next token alone"):
        chunk_loss(AutoModelForCausalLM.from_config(config), 5)


@pytest.mark.parametrize("kind", ["bart", "whisper", "xlm", "trocr", "cpmant"])
def test_a_loss_that_a_model_computes_itself_cannot_be_chunked(kind: str) -> None:
    """BART's decoder learns the same token, not the next one: another loss under the same name."""
    settings = {
        "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "d_model": 32,
        "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 32, "encoder_layers": 1,
        "emb_dim": 32, "n_layers": 1, "n_heads": 4, "hidden_size": 32, "num_attention_heads": 4, "dim_head": 8,
        "num_hidden_layers": 1, "dim_ff": 32, "max_position_embeddings": 64, "is_decoder": True,
        "decoder_start_token_id": 1, "suppress_tokens": [], "begin_suppress_tokens": [],
    }  # fmt: skip
    known = vars(CONFIG_MAPPING[kind]())
    config = CONFIG_MAPPING[kind](**{k: v for k, v in settings.items() if k in known})
    with pytest.raises(ModelError, match=r"loss_chunk_tokens does not work.*a loss of its own"):
        chunk_loss(AutoModelForCausalLM.from_config(config), 5)


def test_a_decoder_that_runs_twice_is_refused() -> None:
    model = make("untied head")
    forward = model.forward

    def twice(**inputs: Any) -> Any:
        forward(**inputs)
        return forward(**inputs)

    model.forward = twice
    chunk_loss(model, 5)
    with pytest.raises(ModelError, match="more than once"):
        model(**batch())


def test_a_model_whose_head_cannot_be_told_apart_is_refused() -> None:
    model = make("untied head")
    model.model.forward = lambda *_, **__: None
    chunk_loss(model, 5)
    with pytest.raises(ModelError, match="does not say what its hidden states are"):
        model(**batch())
