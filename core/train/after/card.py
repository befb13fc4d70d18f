"""The model card: what the model is, what it was made of and how its training went. Pure.

Its first lines are metadata as the Hugging Face hub reads it (https://huggingface.co/docs/hub/model-cards). Data sets
are not among them: there they are names on the hub, and ours are files.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from core.profile import Profile, dumps, is_path
from core.study.after import Check
from core.study.metrics import Point
from core.train.after import curve

_STAGES = {
    "pt": "continued pretraining",
    "sft": "supervised fine-tuning",
    "rm": "reward modelling",
    "dpo": "preference optimisation (DPO)",
    "kto": "preference optimisation (KTO)",
    "ppo": "reinforcement learning (PPO)",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card tells. What is not known is None or empty."""

    name: str
    base: str
    """The base model's name on the hub, or its folder."""
    kind: str
    """"model", "reward model" or "adapter"."""
    dtype: str
    parameters: int
    profile: Profile | None
    points: Sequence[Point]
    versions: Mapping[str, str]
    checks: Sequence[Check]
    effect: float | None
    serve: Sequence[str]


def model_card(facts: Facts) -> str:
    """The text of README.md."""
    parts = [
        _metadata(facts),
        _opening(facts),
        _serving(facts),
        _results(facts.points),
        _curve(facts.points),
        _checks(facts),
        _profile(facts.profile),
        _versions(facts.versions),
        _licence(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def shortened(profile: Profile) -> Profile:
    """The profile with paths cut to their last part: a card is read elsewhere, where a home's name says nothing."""
    model = profile.model.model_copy(
        update={
            "model_name_or_path": short_name(profile.model.model_name_or_path),
            "adapter_name_or_path": _short(profile.model.adapter_name_or_path),
        }
    )
    data = profile.data.model_copy(
        update={
            "dataset": _short_names(profile.data.dataset),
            "eval_dataset": _short_names(profile.data.eval_dataset),
            "dataset_dir": _short(profile.data.dataset_dir),
        }
    )
    alignment = profile.alignment.model_copy(
        update={
            "ref_model": _short(profile.alignment.ref_model),
            "reward_model": _short(profile.alignment.reward_model),
        }
    )
    return replace(profile.as_training(), model=model, data=data, alignment=alignment)


def short_name(name: str) -> str:
    """A name on the hub as it is; of a path its last part."""
    return PurePath(name).name or name if is_path(name) else name


def _short(name: str | None) -> str | None:
    return None if name is None else short_name(name)


def _short_names(names: list[str] | str | None) -> Any:
    if isinstance(names, list):
        return [short_name(n) for n in names]
    return _short(names)


def _datasets(profile: Profile | None) -> list[str]:
    names = _short_names(profile.data.dataset) if profile is not None else []
    return [names] if isinstance(names, str) else list(names)


def _metadata(facts: Facts) -> str:
    on_hub = bool(facts.base) and not is_path(facts.base) and facts.base.count("/") == 1
    lines = ["library_name: peft" if facts.kind == "adapter" else "library_name: transformers"]
    lines.append(
        "pipeline_tag: "
        + ("text-classification" if facts.kind == "reward model" else "text-generation")
    )
    if on_hub:
        relation = "adapter" if facts.kind == "adapter" else "finetune"
        lines += [f"base_model: {json.dumps(facts.base)}", f"base_model_relation: {relation}"]
    stage = [facts.profile.method.stage] if facts.profile is not None else []
    lines += ["tags:", *(f"- {tag}" for tag in ("tunedeck", *stage))]
    return "\n".join(["---", *lines, "---"])


def _opening(facts: Facts) -> str:
    what = {"adapter": "A LoRA adapter", "reward model": "A reward model"}.get(
        facts.kind, "A language model"
    )
    text = f"# {facts.name}\n\n{what}"
    if facts.base:
        text += f", tuned from `{short_name(facts.base)}`"
    if facts.profile is not None:
        first = _short(facts.profile.model.adapter_name_or_path)
        text += f" with the adapter `{first}`" if first else ""
        method = facts.profile.method
        bits = facts.profile.model.quantization_bit
        text += f" by {_STAGES[method.stage]} ({method.finetuning_type}"
        text += f" on a base of {bits} bits)" if bits else ")"
        names = ", ".join(f"`{n}`" for n in _datasets(facts.profile))
        text += f" on {names}"
    text += f". {facts.parameters:,} parameters, {facts.dtype}, made with tunedeck."
    if facts.profile is not None and facts.profile.profile.notes:
        text += f"\n\n{facts.profile.profile.notes}"
    return text


def _serving(facts: Facts) -> str:
    if not facts.serve:
        return ""
    return "## Use\n\n```sh\n" + "\n".join(facts.serve) + "\n```"


def _results(points: Sequence[Point]) -> str:
    """The last value of everything that was measured on validation data, and of the loss."""
    last: dict[str, float] = {}
    for point in points:
        if point.loss is not None:
            last["loss"] = point.loss
        if point.eval_loss is not None:
            last["eval_loss"] = point.eval_loss
        last |= point.more or {}
    if not last:
        return ""
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in last.items())
    return f"## Results\n\n| metric | last value |\n| --- | ---: |\n{rows}"


def _curve(points: Sequence[Point]) -> str:
    losses = [(p.step, p.loss) for p in points if p.loss is not None]
    if not losses:
        return ""
    first, last = losses[0], losses[-1]
    parts = [
        "## Training",
        f"Training loss, update {first[0]:,} to {last[0]:,}: {first[1]:.4g} to {last[1]:.4g}",
        f"![Losses of training and validation]({curve.PICTURE})" if curve.picture(points) else "",
        f"```\n{curve.sparkline([loss for _, loss in losses])}\n```",
        curve.table(points),
    ]
    return "\n\n".join(part for part in parts if part)


def _checks(facts: Facts) -> str:
    if not facts.checks:
        return ""
    noun = "scores" if facts.kind == "reward model" else "logits"
    lines = [
        "## Checked",
        "",
        f"The {noun} of six prompts in several languages, root mean square of the differences over that of the {noun}:",
        "",
        "| what | difference | allowed | same likeliest token |",
        "| --- | ---: | ---: | ---: |",
    ]
    what = {"merged": "merged against base and adapter", "written": "loaded from these files"}
    lines += [
        f"| {what[c.what]} | {c.error:.2g} | {c.tolerance:g} | "
        + ("" if c.agreement is None else f"{c.agreement:.1%}")
        + " |"
        for c in facts.checks
    ]
    if facts.effect is not None:
        lines += ["", f"Training itself moved them by {facts.effect:.2g}."]
    return "\n".join(lines)


def _profile(profile: Profile | None) -> str:
    if profile is None:
        return ""
    return (
        "## Profile\n\nPaths are cut to their last part.\n\n"
        f"```toml\n{dumps(shortened(profile)).strip()}\n```"
    )


def _versions(versions: Mapping[str, str]) -> str:
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"## Versions\n\n{told}" if told else ""


def _licence(facts: Facts) -> str:
    base = f"`{short_name(facts.base)}`" if facts.base else "the base model"
    return (
        "## Licence\n\nA tuned model stays under the licence of its base: see the base model's, "
        f"{base}, and those of the data."
    )
