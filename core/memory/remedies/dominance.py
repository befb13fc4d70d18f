"""What holds a run's memory, in a sentence: that decides what helps and what barely would."""

from core.memory.forecast import GIB, MIB, Category, Forecast
from core.profile import Profile

LITTLE = 0.15
"""A category below this share of the peak is not worth shrinking."""

_SUBJECTS: dict[Category, str] = {
    "weights": "Weights dominate",
    "adapters": "Adapters dominate",
    "gradients": "Gradients dominate",
    "optimizer": "The optimizer's states dominate",
    "activations": "Activations dominate",
    "logits": "Logits (the scores over the vocabulary) dominate",
    "workspace": "The kernels' workspace dominates",
}


def explain(forecast: Forecast, profile: Profile) -> str:
    """What dominates the peak, by how much, what helps against it, and what people try that barely would."""
    held = forecast.parts.get(forecast.dominant, 0)
    head = f"{_SUBJECTS[forecast.dominant]} ({_gib(held)} of {_gib(forecast.allocated)} GiB)"
    rest = [text for text in (_helps(forecast, profile), _barely(forecast, profile)) if text]
    return f"{head}: {'; '.join(rest)}." if rest else f"{head}."


def _helps(forecast: Forecast, profile: Profile) -> str:
    train, method = profile.train, profile.method
    many = train.per_device_train_batch_size > 1
    full = method.finetuning_type == "full"
    ways: list[str] = []
    if forecast.dominant in ("activations", "logits") and many:
        ways.append("a smaller micro-batch")
    if forecast.dominant == "activations":
        if not train.gradient_checkpointing or train.gradient_checkpointing_every > 1:
            ways.append("checkpointing")
        if profile.model.attn == "eager":
            ways.append("sdpa attention")
    elif forecast.dominant == "logits":
        if not train.loss_chunk_tokens:
            ways.append("the loss in chunks")
    elif forecast.dominant == "weights":
        if method.finetuning_type == "lora" and profile.model.quantization_bit != 4:
            ways.append("quantising them")
        if full:
            ways.append("LoRA on quantised weights")
    elif forecast.dominant in ("optimizer", "gradients"):
        if forecast.dominant == "optimizer" and "8bit" not in train.optim:
            ways.append("8-bit or offloaded states")
        if full:
            ways.append("LoRA")
    elif forecast.dominant == "adapters":
        ways += ["a lower rank", "bf16 for them"]
    if not ways and forecast.dominant in ("activations", "logits"):
        ways.append("shorter rows")
    if not ways:
        return ""
    return f"{' or '.join(ways)} {'help' if len(ways) == 1 and ways[0].endswith('s') else 'helps'}"


def _barely(forecast: Forecast, profile: Profile) -> str:
    """The remedy that people try first and that does little here."""
    if forecast.dominant in ("activations", "logits"):
        quantises = profile.method.finetuning_type == "lora" and not profile.model.quantization_bit
        if quantises and _is_little(forecast, "weights"):
            return f"quantising the weights ({_size(forecast, 'weights')}) barely would"
        if _is_little(forecast, "optimizer"):
            return f"another optimizer (states of {_size(forecast, 'optimizer')}) barely would"
        return ""
    moving = forecast.parts.get("activations", 0) + forecast.parts.get("logits", 0)
    if profile.train.per_device_train_batch_size == 1:
        return ""
    if profile.method.finetuning_type == "full" and profile.train.gradient_accumulation_steps == 1:
        gradients = forecast.parts.get("gradients", 0)
        kept = f" ({_gib(gradients)} GiB)" if gradients else ""
        return f"a smaller micro-batch with accumulation would keep gradients alive{kept}"
    if moving < LITTLE * forecast.allocated:
        return f"a smaller micro-batch (activations and logits of {_amount(moving)}) barely would"
    return ""


def _is_little(forecast: Forecast, category: Category) -> bool:
    return forecast.parts.get(category, 0) < LITTLE * forecast.allocated


def _size(forecast: Forecast, category: Category) -> str:
    return _amount(forecast.parts.get(category, 0))


def _amount(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / MIB:.0f} MiB"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}" if size >= 0.1 * GIB else f"{size / GIB:.2f}"
