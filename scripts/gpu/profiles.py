"""The profiles that the checks run: the demo's model on its data, or the model of `material.py` on long rows."""

from typing import Any

from scripts.gpu.place import Place

Document = dict[str, dict[str, Any]]


def small(rate: float, steps: int, **train: Any) -> Document:
    """The demo's model, all weights training, `steps` updates of 8 short rows; nothing is evaluated."""
    return {
        "model": {"model_name_or_path": "demo"},
        "method": {"finetuning_type": "full"},
        "data": {"dataset": "demo", "cutoff_len": 64, "val_size": 0},
        "train": {
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_steps": steps,
            "warmup_ratio": 0.0,
            **train,
        },
        "search": _one_trial(rate),
    }


def large(place: Place, method: str, steps: int, batch: int, cutoff: int) -> Document:
    """The model of `material.py` on rows that all fill `cutoff` tokens."""
    return {
        "model": {"model_name_or_path": str(place.material / "model")},
        "method": {"finetuning_type": method},
        "data": {
            "dataset": str(place.material / "rows.jsonl"),
            "cutoff_len": cutoff,
            "val_size": 0,
            # An absurd batch must find enough rows.
            "max_samples": max(64, batch),
        },
        "train": {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": 1,
            "max_steps": steps,
        },
        "search": _one_trial(2e-4),
    }


def _one_trial(rate: float) -> dict[str, Any]:
    """A search of one probe, which is as long as the full training."""
    return {"strategy": "grid", "budget": 1.0, "space": {"learning_rate": [rate]}}
