"""What a setting comes to beside the others: its default where it is not set, nothing where another one overrides it.

Two profiles that train alike may be written in two ways. Only defaults that other settings decide are written out here;
what the device decides (precision, attention) and what the length of the run does (eval_steps) stay as they are.
"""

from collections.abc import Mapping
from typing import Any

from core.mixture import exact_shares
from core.optimizer_settings import OptimArgsError, optim_args
from core.params.method import default_alpha
from core.search.halving import WITHOUT_WARMUP
from core.space_checks import OVERRIDDEN
from core.train.settings import with_schedule_defaults
from core.values import names_in

JUDGED = "search.rank_by"
"""What evaluations are judged by, as it turns out, as "eval_loss (min)"."""
_NAMES = frozenset(
    {
        "method.lora_target", "method.additional_target", "method.freeze_trainable_modules",
        "method.freeze_extra_modules", "train.optim_target_modules",
    }
)  # fmt: skip
"""Names separated by commas, whose order says nothing."""


def comes_to(key: str, settings: Mapping[str, Any]) -> Any:
    """What the setting `key` comes to among `settings` (full key → value); to be compared, not to be shown."""
    value = settings.get(key)
    if settings.get(OVERRIDDEN.get(key, "")) is not None:
        return None
    if key in _NAMES and isinstance(value, str):
        return frozenset(names_in(value))
    match key:
        case "method.lora_alpha":
            rank = settings.get("method.lora_rank")
            return default_alpha(rank) if value is None and rank is not None else value
        case "method.adapter_precision":
            pure = settings.get("train.precision") == "pure_bf16"
            return ("bf16" if pure else "fp32") if value == "auto" else value
        case "train.per_device_eval_batch_size":
            return value or settings.get("train.per_device_train_batch_size")
        case "train.warmup_ratio" | "train.warmup_steps":
            return None if settings.get("train.lr_scheduler_type") in WITHOUT_WARMUP else value
        case "train.lr_scheduler_kwargs":
            return _schedule(value or {}, settings)
        case "train.optim_args":
            return _optimizer(value, settings)
        case "data.dataset" | "data.eval_dataset":
            return listed(value)
        case "data.interleave_probs":
            return _shares(value, settings)
        case "data.val_size":
            return 0.0 if settings.get("data.eval_dataset") else value
    return value


def listed(value: Any) -> list[str] | None:
    """The names of data sets, of which several may stand in one text, with commas; None where there are none."""
    texts = [value] if isinstance(value, str) else value or ()
    return [name for text in texts for name in names_in(text)] or None


def _schedule(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    rate, name = settings.get("train.learning_rate"), settings.get("train.lr_scheduler_type")
    if rate is None or name is None:
        return dict(given)
    greater = str(settings.get(JUDGED, "")).endswith("(max)")
    return with_schedule_defaults(given, name, rate, greater=greater)


def _optimizer(text: str | None, settings: Mapping[str, Any]) -> Any:
    try:
        return optim_args(str(settings.get("train.optim")), text)
    except OptimArgsError:
        return text


def _shares(weights: list[float] | None, settings: Mapping[str, Any]) -> Any:
    """The weights of data sets count in proportion."""
    sets = listed(settings.get("data.dataset")) or []
    shares = exact_shares(len(sets), weights)
    return [share / sum(shares) for share in shares] if sum(shares) else weights
