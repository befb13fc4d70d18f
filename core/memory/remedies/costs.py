"""What a memory fix costs in time: seconds a token of two profiles of the same model, held against each other.

A model of the step's computation and traffic, with few constants that nobody knows exactly. Each constant is there
twice, as the value that makes fixes cheap and as the one that makes them dear; a slowdown is the range between the two.
Times are in FLOPs a token, which is what a GPU of known speed turns into seconds: only ratios are meant to be used.
"""

from dataclasses import dataclass

from core.memory.estimate.states import is_fused
from core.memory.forecast import Lengths, Target
from core.memory.models.shape import Architecture
from core.profile import Profile


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What speed rests on besides the number of operations. `scripts/gpu_check.py` measures most of them."""

    filled: float
    """How long a typical row is, as a share of the longest one."""
    starting: float
    """What a batch costs before its first token (kernels start, weights are read), as the computation of so many
    tokens."""
    recomputed: float
    """The share of a checkpointed layer's forward pass that is computed again."""
    unpacking: float
    """What turning the 4-bit weights into 16-bit ones costs, each time they are used, as a forward pass of so many
    tokens."""
    int8: float
    """What 8-bit weights add to a matrix product, as a share of it."""
    eager: float
    """Attention with the eager kernel, as a multiple of sdpa's."""
    chunked: float
    """The share of the head's forward pass that the loss in chunks computes again."""
    adapters: float
    """What adapters add to the forward and backward pass, as a share of them."""
    flops: float
    """Operations a second that training reaches, as a share of the range of its kind of GPU."""
    memory: float
    """Operations in the time in which the device's memory moves one byte."""
    bus: float
    """Bytes a second between host and GPU."""
    host: float
    """Bytes a second of the host's memory, where an offloaded optimizer works."""
    paged: float
    """The share of a paged optimizer's states that is on the host when it is needed."""
    link: float
    """Bytes a second that each of several GPUs sends to the others: over PCIe through the host, or over NVLink."""
    exposed: float
    """The share of what GPUs send each other that computation does not hide."""


CHEAP = Assumptions(
    filled=1.0,
    starting=64,
    recomputed=0.6,
    unpacking=110,
    int8=0.3,
    eager=2.5,
    chunked=0.5,
    adapters=0.05,
    flops=0.0,
    memory=50,
    bus=25e9,
    host=80e9,
    paged=0.0,
    link=150e9,
    exposed=0.3,
)
DEAR = Assumptions(
    filled=0.4,
    starting=768,
    recomputed=0.98,
    unpacking=800,
    int8=2.0,
    eager=5.0,
    chunked=1.0,
    adapters=0.3,
    flops=1.0,
    memory=150,
    bus=12e9,
    host=15e9,
    paged=1.0,
    link=10e9,
    exposed=1.0,
)

SPEEDS: tuple[tuple[tuple[int, int], tuple[float, float]], ...] = (
    ((10, 0), (100e12, 900e12)),
    ((9, 0), (250e12, 500e12)),
    ((8, 6), (30e12, 160e12)),
    ((8, 0), (100e12, 190e12)),
    ((0, 0), (20e12, 70e12)),
)
"""Operations a second that 16-bit training reaches, slowest to fastest, by the least compute capability. About half of
the makers' figures for dense tensor cores: T4 … V100, A100, RTX 3060 … RTX 4090 and L40S, H100, RTX 50 … B200."""
CPU_SPEED = (0.05e12, 2e12)
CPU_STARTING = 0.1
"""A CPU starts a kernel in less time than a GPU, measured in its own computation."""
CPU_MEMORY = 0.1
"""A CPU computes less in the time in which its memory moves a byte."""
STANDARD_CAPABILITY = (8, 0)
"""Taken for a GPU whose capability is not known."""

TRAFFIC = {
    "adamw_torch": 44.0,
    "adamw_torch_fused": 28.0,
    "adamw_8bit": 18.0,
    "paged_adamw_32bit": 28.0,
    "paged_adamw_8bit": 18.0,
    "adafactor": 60.0,
    "sgd": 20.0,
    "lion_32bit": 20.0,
    "lion_8bit": 14.0,
    "paged_lion_32bit": 20.0,
    "paged_lion_8bit": 14.0,
    "galore_adamw": 80.0,
    "galore_adamw_8bit": 80.0,
    "galore_adafactor": 80.0,
    "apollo_adamw": 60.0,
}
"""Bytes that an update moves for each weight that trains: weight, gradient and states read and written, temporary
copies where kernels are not fused."""
STATES = {
    "paged_adamw_32bit": 8.0,
    "paged_adamw_8bit": 2.0,
    "paged_lion_32bit": 4.0,
    "paged_lion_8bit": 1.0,
}
"""Bytes of a paged optimizer's states for each weight that trains."""
OFFLOADED_UPDATE = 28.0
"""Bytes that AdamW moves in the host's memory for each weight: weight, gradient and two states in fp32."""

SOURCES = {
    "batch": "assumed: a batch's start costs as much as 64 to 768 tokens",
    "eval_batch": "training stays as it is",
    "checkpointing": "published: 20 to 49 % with all layers, every n-th in proportion",
    "attention": "published for flash-attention: a third of eager's time for the attention itself on an A100",
    "loss": "calculated: one more product with the head",
    "optimizer": "calculated: the bytes that an update moves",
    "adapters": "calculated: the same operations on smaller numbers",
    "quantization": "published: 4 bits 5 % (fms-acceleration) to 100 % (LitGPT), 8 bits up to 200 % (bitsandbytes)",
    "precision": "calculated: an update moves half the bytes",
    "method": "calculated: no gradients of the frozen weights",
    "offload": "calculated: activations there and back over PCIe at 12 to 25 GB/s",
    "length": "calculated: shorter attention, smaller batches",
    "gpus": "calculated, for the time of all GPUs together: gradients, with fsdp weights too, sent at 10 to 150 GB/s",
}
"""Where the slowdown of each kind of change comes from."""


def slowdown(
    before: Profile,
    after: Profile,
    architecture: Architecture,
    target: Target,
    lengths: Lengths,
) -> tuple[float, float]:
    """The time per token of `after` as a factor of `before`'s, from the least to the most; 1.0 is as fast.

    Times of several GPUs are added up: two that take half as long each are as fast as one.
    """
    ratios = [
        time_per_token(after, architecture, target, lengths, assumed)
        / time_per_token(before, architecture, target, lengths, assumed)
        for assumed in (CHEAP, DEAR)
    ]
    return min(ratios), max(ratios)


def time_per_token(
    profile: Profile,
    architecture: Architecture,
    target: Target,
    lengths: Lengths,
    assumed: Assumptions,
) -> float:
    """The time of a training step for each of its tokens, in FLOPs of computation at the assumed speed."""
    train, quantized = profile.train, profile.model.quantization_bit
    longest = min(lengths.train, profile.data.cutoff_len)
    row = longest if profile.data.packing else max(1.0, longest * assumed.filled)
    tokens = row * train.per_device_train_batch_size
    layers, attention, head = _forward(profile, architecture, row, assumed)
    trained = _trained_share(profile, architecture)
    # Below the first layer that trains nothing is propagated; gradients of weights are made only of those that train.
    back = (layers + attention) * (trained if profile.method.finetuning_type == "freeze" else 1.0)
    weights = {"full": 1.0, "freeze": trained, "lora": 0.0}[profile.method.finetuning_type]
    plain = layers + attention + 2 * head + back + weights * (layers + head)
    if profile.method.finetuning_type == "lora":
        plain *= 1 + assumed.adapters
    time = plain + plain * _starting(target, assumed) / tokens
    again = 0.0
    if train.gradient_checkpointing:
        again = assumed.recomputed / train.gradient_checkpointing_every
        time += back * again
    if train.loss_chunk_tokens:
        time += head * assumed.chunked
    if quantized == 4:
        time += layers * assumed.unpacking * (2 + again) / tokens
    elif quantized == 8:
        time += layers * assumed.int8 * (2 + again)
    return time + _traffic(profile, architecture, target, row, assumed)


def trainable(profile: Profile, architecture: Architecture) -> float:
    """About how many weights train."""
    if profile.method.finetuning_type != "lora":
        return architecture.size() * _trained_share(profile, architecture)
    named = profile.method.lora_target.split(",")
    adapted = [m for m in architecture.linears if "all" in named or m.name in named]
    widths = sum(m.inputs + m.outputs for m in adapted or architecture.linears)
    return float(profile.method.lora_rank * widths * architecture.layers)


def _forward(
    profile: Profile, architecture: Architecture, row: float, assumed: Assumptions
) -> tuple[float, float, float]:
    """FLOPs a token of the layers' linear parts, of attention and of the output head: two for each weight, and for
    causal attention two for each pair of a token, a layer and a number of the head."""
    numbers = float(sum(m.weight for m in architecture.linears))
    if architecture.experts:
        # A token goes through a few of the experts only.
        numbers += (
            architecture.expert_numbers * architecture.experts_per_token / architecture.experts
        )
    layers = 2.0 * numbers * architecture.layers
    attention = 2.0 * row * architecture.layers * architecture.heads * architecture.head_dim
    if profile.model.attn == "eager":
        attention *= assumed.eager
    return layers, attention, 2.0 * architecture.embedding


def _trained_share(profile: Profile, architecture: Architecture) -> float:
    if profile.method.finetuning_type != "freeze":
        return 1.0
    return min(1.0, abs(profile.method.freeze_trainable_layers) / max(1, architecture.layers))


def _starting(target: Target, assumed: Assumptions) -> float:
    return assumed.starting * (CPU_STARTING if target.kind == "cpu" else 1.0)


def _traffic(
    profile: Profile,
    architecture: Architecture,
    target: Target,
    row: float,
    assumed: Assumptions,
) -> float:
    """What moving bytes takes, as FLOPs a token: the update's, and what goes over the bus."""
    train = profile.train
    update = row * profile.batch_per_gpu()
    trained = trainable(profile, architecture)
    speed = _speed(target, assumed)
    over_bus = speed / assumed.bus
    if train.offload_optimizer:
        # Gradients go to the host and weights come back; the update itself runs at the pace of the host's memory.
        number = 4 if profile.train.precision == "pure_bf16" else 8
        time = trained * (number * over_bus + OFFLOADED_UPDATE * speed / assumed.host) / update
    else:
        half = 0.5 if train.precision == "pure_bf16" else 1.0
        memory = assumed.memory * (CPU_MEMORY if target.kind == "cpu" else 1.0)
        fused = is_fused(train, cuda=target.kind == "cuda")
        moved = TRAFFIC["adamw_torch_fused" if fused else train.optim]
        time = trained * moved * half * memory / update
        time += trained * STATES.get(train.optim, 0.0) * 2 * assumed.paged * over_bus / update
    if train.offload_activations:
        time += 2 * _kept(profile, architecture) * over_bus
    return time + _sent(profile, architecture, row) * assumed.exposed * speed / assumed.link


def _sent(profile: Profile, architecture: Architecture, row: float) -> float:
    """Bytes a token that a GPU sends to those that it shares the trial with.

    In rings (NCCL): gradients there and back once an update; with fsdp, weights twice and gradients once a batch.
    """
    count = profile.resources.gpus_per_trial
    if count == 1:
        return 0.0
    train, full = profile.train, profile.method.finetuning_type != "lora"
    trained = 2 if train.precision == "pure_bf16" else 4
    frozen = trained if full else (4 if train.precision == "fp32" else 2)
    gradients = trainable(profile, architecture) * trained
    hop = (count - 1) / count
    if profile.resources.sharding == "fsdp":
        batch = row * train.per_device_train_batch_size
        return hop * (2 * architecture.size() * frozen + gradients) / batch
    # zero1 sends the updated weights in place of gradients that come back.
    return hop * 2 * gradients / (row * profile.batch_per_gpu())


def _kept(profile: Profile, architecture: Architecture) -> float:
    """Bytes of activations a token that wait for the backward pass: 2 bytes a number of a checkpointed layer's input,
    else the sum over a layer (20 hidden + 8 intermediate + 4 key-value numbers in 16-bit training)."""
    hidden, inner = architecture.hidden, architecture.intermediate
    whole = 20 * hidden + 8 * inner + 4 * architecture.kv_heads * architecture.head_dim
    share = 0.0
    if profile.train.gradient_checkpointing:
        share = 1 / profile.train.gradient_checkpointing_every
    return architecture.layers * (share * 2 * hidden + (1 - share) * whole)


def _speed(target: Target, assumed: Assumptions) -> float:
    if target.kind == "cpu":
        slow, fast = CPU_SPEED
    else:
        capability = target.capability or STANDARD_CAPABILITY
        slow, fast = next(speeds for least, speeds in SPEEDS if capability >= least)
    return slow + (fast - slow) * assumed.flops
