"""What is held in the host's memory computes the same; on the CPU the host's copies are copies all the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig, LlamaForCausalLM

from core.params import TrainTable
from core.train.memory import offload
from core.train.memory.offload import OffloadedOptimizer, offload_activations
from core.train.optimizers import build_optimizer


def make(dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=2,
        )
    )  # fmt: skip
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    return (model if dtype == torch.float32 else model.to(dtype)).train()


def table(**settings: Any) -> TrainTable:
    return TrainTable(**{"learning_rate": 1e-2, "weight_decay": 0.1, **settings})


def learn(model: Any, optimizer: Any, steps: int, schedule: Any = None, seed: int = 1) -> None:
    """Updates with gradients that are clipped, as the Trainer makes them."""
    torch.manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(0, 100, (2, 12))
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        optimizer.zero_grad()


def weights(model: Any) -> list[Any]:
    return [w.detach().clone() for w in model.parameters()]


def same(one: Any, two: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


@pytest.mark.parametrize("bucket", [1, 3000, offload.BUCKET])
@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_become_the_same(
    monkeypatch: pytest.MonkeyPatch, optim: Any, dtype: Any, bucket: int
) -> None:
    monkeypatch.setattr(offload, "BUCKET", bucket)
    one, two = make(dtype), make(dtype)
    plain = build_optimizer(one, table(optim=optim), "cpu")
    away = build_optimizer(two, table(optim=optim, offload_optimizer=True), "cpu")
    assert isinstance(away, OffloadedOptimizer)
    for model, optimizer in ((one, plain), (two, away)):
        halving = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        learn(model, optimizer, 4, halving)
    assert same(one, two) and not same(one, make(dtype))
    assert away.param_groups[0]["lr"] == plain.param_groups[0]["lr"] == 1e-2 / 16


def test_the_device_holds_nothing_for_it() -> None:
    model = make()
    optimizer = build_optimizer(model, table(offload_optimizer=True), "cpu")
    learn(model, optimizer, 2)
    ours = {w.data_ptr() for w in model.parameters()}
    held = [t for s in optimizer._inner.state.values() for t in s.values() if t.numel() > 1]
    assert held and not optimizer.state
    assert all(copy.data_ptr() not in ours for copy in optimizer._host.values())
    assert all(copy.grad is None for copy in optimizer._host.values())


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_checkpoint_is_taken_up_exactly_with_offload_or_without(
    before: bool, after: bool
) -> None:
    straight = make()
    optimizer = build_optimizer(straight, table(), "cpu")
    learn(straight, optimizer, 3)
    learn(straight, optimizer, 3, seed=2)

    first = make()
    optimizer = build_optimizer(first, table(offload_optimizer=before), "cpu")
    learn(first, optimizer, 3)
    saved = optimizer.state_dict()
    second = make()
    optimizer = build_optimizer(second, table(offload_optimizer=after, learning_rate=0.5), "cpu")
    # The Trainer loads the weights before it builds the optimizer, or after: neither may matter.
    second.load_state_dict(first.state_dict())
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 1e-2
    learn(second, optimizer, 3, seed=2)
    assert same(second, straight)


def test_loss_scaling_skips_an_update_that_overflows_and_unscales_the_others() -> None:
    one, two = make(), make()
    plain = build_optimizer(one, table(), "cpu")
    away = build_optimizer(two, table(offload_optimizer=True), "cpu")
    start = weights(two)
    for model, optimizer in ((one, plain), (two, away)):
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        ids = torch.arange(12)[None]
        for overflow in (True, False):
            scaler.scale(model(input_ids=ids, labels=ids).loss).backward()
            if overflow:
                model.lm_head.weight.grad[0, 0] = torch.inf
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if overflow:
                assert all(torch.equal(a, b) for a, b in zip(weights(model), start, strict=True))
        assert scaler.get_scale() == 2.0
    assert same(one, two)


def test_weights_without_a_gradient_stay() -> None:
    model = make()
    optimizer = build_optimizer(model, table(offload_optimizer=True), "cpu")
    optimizer.step()
    assert same(model, make())
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    optimizer.step()
    changed = [
        n for n, p in model.named_parameters() if not torch.equal(p, make().get_parameter(n))
    ]
    assert changed == ["lm_head.weight"]


def test_an_update_needs_no_real_tensors() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = make()
        optimizer = build_optimizer(model, table(offload_optimizer=True), "cpu")
        learn(model, optimizer, 1)


def forward_and_back(model: Any) -> tuple[float, list[Any]]:
    torch.manual_seed(3)
    ids = torch.randint(0, 100, (2, 12))
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


class Decoder(torch.nn.Module):
    """A model that is all decoder."""

    def __init__(self, compute: Callable[..., Any], layers: Any = ()) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)
        self._compute = compute

    def get_decoder(self) -> Any:
        return self

    def forward(self, *inputs: Any) -> Any:
        return self._compute(*inputs)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What has been moved, as its shapes; small tensors are moved as well."""
    monkeypatch.setattr(offload, "LEAST", 256)
    shapes: list[Any] = []
    landing = offload._landing

    def note(tensor: Any) -> Any:
        shapes.append(tuple(tensor.shape))
        return landing(tensor)

    monkeypatch.setattr(offload, "_landing", note)
    return shapes


@pytest.mark.parametrize("chunks", [None, 8])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_that_were_away_give_the_same_gradients(
    moved: list[Any], checkpointing: bool, chunks: int | None
) -> None:
    from core.train.memory.checkpointing import checkpoint_activations
    from core.train.memory.loss import chunk_loss

    plain, ours = make(), make()
    for model in (plain, ours):
        if checkpointing:
            checkpoint_activations(model)
        if model is ours:
            offload_activations(model, from_host=True)
        if chunks is not None:
            chunk_loss(model, chunks)
    expected = forward_and_back(plain)
    assert moved == []
    away = forward_and_back(ours)
    assert away[0] == expected[0]
    assert all(torch.equal(a, b) for a, b in zip(away[1], expected[1], strict=True))
    hidden = moved.count((2, 12, 32))
    if checkpointing:
        # The input of each layer, and of the last norm.
        assert hidden <= 5 and (2, 12, 64) not in moved
    else:
        assert hidden > 5 and (2, 12, 64) in moved
    assert not any(shape[-1] == 100 for shape in moved)


def test_an_evaluation_moves_nothing(moved: list[Any]) -> None:
    model = make()
    offload_activations(model, from_host=True)
    with torch.no_grad():
        model(input_ids=torch.arange(12)[None])
    assert moved == []


def test_weights_do_not_move_and_what_several_operations_save_moves_once(moved: list[Any]) -> None:
    layers = [torch.nn.Linear(16, 16, bias=False) for _ in range(3)]
    model = Decoder(lambda x: sum((layer(x) ** 2).sum() for layer in layers), layers)
    offload_activations(model, from_host=True)
    given = torch.randn(8, 16, requires_grad=True)
    shared = given * 2
    model(shared).backward()
    # Once for the three layers' input, and once for each square.
    assert moved == [(8, 16)] * 4
    expected = sum(2 * 2 * (shared @ w.weight.T) @ w.weight for w in layers)
    torch.testing.assert_close(given.grad, expected)


def test_a_tensor_that_takes_another_s_place_in_memory_is_not_taken_for_it(
    moved: list[Any],
) -> None:
    weight = torch.ones(64, requires_grad=True)

    def compute() -> Any:
        total: Any = 0
        for number in range(20):
            # Freed as soon as it is saved: the next one gets its memory.
            total = total + (weight * torch.full((64,), float(number))).sum()
        return total

    model = Decoder(compute)
    offload_activations(model, from_host=True)
    model().backward()
    assert weight.grad is not None and bool((weight.grad == sum(range(20))).all())


def test_a_tensor_that_is_changed_in_place_is_another_one(moved: list[Any]) -> None:
    weight = torch.ones(64, requires_grad=True)
    factor = torch.ones(64)

    def compute() -> Any:
        first = (weight * factor).sum()
        factor.mul_(3)
        return first + (weight * factor).sum()

    model = Decoder(compute)
    offload_activations(model, from_host=True)
    model().backward()
    # Each product saves its factor; the weight, which is no decoder's here, is saved for none.
    assert moved.count((64,)) == 2
    assert weight.grad is not None and bool((weight.grad == 4).all())


def test_a_tensor_that_repeats_itself_is_moved_once_and_comes_back_as_it_was(
    moved: list[Any],
) -> None:
    """A mask that attention expands to every head is in memory once."""
    weight = torch.ones(2, 16, 8, 8, requires_grad=True)
    mask = torch.arange(128.0).view(2, 1, 8, 8)
    back: list[Any] = []

    class Times(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, weight: Any, factor: Any) -> Any:
            context.save_for_backward(factor)
            return weight * factor

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            back.extend(context.saved_tensors)
            return gradient * context.saved_tensors[0], None

    model = Decoder(lambda: Times.apply(weight, mask.expand(2, 16, 8, 8)).sum())
    offload_activations(model, from_host=True)
    model().backward()
    assert moved == [(2, 1, 8, 8)]
    assert back[0].shape == (2, 16, 8, 8) and back[0].untyped_storage().nbytes() == 512
    assert weight.grad is not None and torch.equal(weight.grad, mask.expand(2, 16, 8, 8))


def test_what_is_in_the_host_s_memory_stays_there(moved: list[Any]) -> None:
    model = make()
    offload_activations(model)
    forward_and_back(model)
    assert moved == []
