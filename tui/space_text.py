"""A search space's entry as a line of text: `1e-5, 1e-4, 3e-4` or `1e-5 .. 1e-3 log` or `0 .. 0.1 step 0.02`. Pure."""

import csv
import re
from collections.abc import Mapping
from typing import Any

from core.catalogue import Parameter, space_problem
from core.params import Range
from core.values import Scalar, number, read_toml, toml_value
from tui.rates import RATE, usual_rates

Entry = list[Scalar] | Range

HOW_TO = "write a list, as 1e-5, 1e-4, or a range, as 1e-5 .. 1e-3 log or 0 .. 0.1 step 0.02"
HOW_TO_LIST = "write a list of values with commas between them"


def space_text(entry: Entry) -> str:
    """An entry as a person would type it; `parse_space` reads it back."""
    if not isinstance(entry, Range):
        return ", ".join(_quoted(v) for v in entry)
    text = f"{number(entry.low)} .. {number(entry.high)}"
    if entry.scale == "log":
        return f"{text} log"
    return text if entry.step is None else f"{text} step {number(entry.step)}"


def parse_space(parameter: Parameter, text: str) -> Entry:
    """Read an entry for `parameter`.

    Raises:
        ValueError: the text is no list and no range, or a value in it is not allowed; the message says what would be.
    """
    stripped = text.strip()
    if not stripped:
        raise ValueError(how_to(parameter))
    entry: Entry
    if stripped.startswith(("[", "{")):
        entry = _parse_toml(parameter, stripped)
    elif ".." in stripped and parameter.kind in ("int", "float"):
        entry = _parse_range(stripped)
    else:
        entry = _parse_list(parameter, stripped)
    wrong = space_problem(parameter, entry)
    if wrong:
        raise ValueError(wrong)
    return entry


def suggested_space(parameter: Parameter, values: Mapping[str, Any]) -> str:
    """What to propose when a person marks a parameter: what is known to work, or values around the present one.

    `values` are all of the draft's, by full key.
    """
    value = values[parameter.key]
    if parameter.key == RATE:
        return usual_rates(values).space()
    if parameter.key in _SUGGESTED:
        return _SUGGESTED[parameter.key]
    if parameter.kind == "bool":
        return "false, true"
    if parameter.choices:
        return ", ".join(_quoted(c) for c in parameter.choices if c is not None)
    if parameter.kind == "text" or not value:
        return _quoted(value) if value else ""
    around: list[Scalar] = [value / 2, value, value * 2]
    if parameter.kind == "int":
        around = [int(v) for v in around]
    fitting = (v for v in dict.fromkeys(around) if space_problem(parameter, [v]) is None)
    return ", ".join(number(float(v)) for v in fitting)


_SUGGESTED = {
    "train.num_train_epochs": "1, 2, 3",
    "train.lr_scheduler_type": "linear, cosine, constant_with_warmup",
    "train.warmup_ratio": "0.03, 0.1",
    "train.warmup_steps": "20, 50, 100",
    "train.weight_decay": "0, 0.01, 0.1",
    "train.adam_beta1": "0.8, 0.9",
    "train.adam_beta2": "0.95, 0.99, 0.999",
    "train.max_grad_norm": "0.3, 1, 5",
    "train.neftune_noise_alpha": "5, 10, 15",
    "train.seed": "1, 2, 3",
    "method.lora_rank": "8, 16, 32, 64",
    "method.lora_alpha": "8, 16, 32",
    "method.lora_dropout": "0, 0.05, 0.1",
    "method.lora_target": 'all, "q_proj,v_proj"',
    "method.freeze_trainable_layers": "2, 4, 8",
    "method.finetuning_type": "lora, full",
}


def _quoted(value: Scalar) -> str:
    text = value if isinstance(value, str) else toml_value(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[,"]|^\s|\s$', text) else text


def how_to(parameter: Parameter) -> str:
    """How an entry for `parameter` is written."""
    return HOW_TO if parameter.kind in ("int", "float") else HOW_TO_LIST


def _parse_toml(parameter: Parameter, text: str) -> Entry:
    value = read_toml(text)
    if isinstance(value, list):
        return [_number_for(parameter, v) for v in value]
    if isinstance(value, dict):
        try:
            return Range.model_validate(value)
        except ValueError:
            pass
    raise ValueError(how_to(parameter))


def _number_for(parameter: Parameter, value: Any) -> Any:
    """A whole number where a fraction may stand, and the other way round, as people write them."""
    whole = isinstance(value, float) and value.is_integer() and parameter.kind == "int"
    return int(value) if whole else value


def _parse_range(text: str) -> Range:
    match = re.fullmatch(
        r"(\S+)\s*\.\.\s*(\S+)(?:\s+(log|linear))?(?:\s+step\s+(\S+))?", text, re.IGNORECASE
    )
    if match is None:
        raise ValueError(HOW_TO)
    low, high, scale, step = match.groups()
    if scale and scale.lower() == "log" and step:
        raise ValueError("step goes with a linear range only")
    return Range(
        low=_number(low),
        high=_number(high),
        scale="log" if scale and scale.lower() == "log" else "linear",
        step=None if step is None else _positive(step),
    )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text} is no number: {HOW_TO}") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is no end of a range: {HOW_TO}")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise ValueError(f"step {text} must be above 0")
    return value


def _parse_list(parameter: Parameter, text: str) -> list[Scalar]:
    try:
        parts = next(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error:
        raise ValueError('a quoted value ends with "') from None
    parts = [p.strip() for p in parts]
    if parts and not parts[-1]:
        parts.pop()  # A comma at the end is a list that is still being typed.
    values: list[Scalar] = []
    for part in parts:
        value = parameter.parse(part)
        if value is None:
            raise ValueError('a list cannot hold "not set"')
        values.append(value)
    return values
