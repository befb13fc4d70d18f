"""The reward model of PPO: found and looked at before anything is loaded, then loaded to score answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.params import ModelTable
from core.profile import is_path
from core.train.errors import ModelError, first_line
from core.train.limits import is_out_of_memory
from core.train.model.moved import base_now
from core.train.model.source import cached_folder
from core.train.ppo.policy import without_dropout
from core.train.ppo.reference import share_weights
from core.train.ppo.rollout import pad_right

_HEADS = ("score", "classifier", "v_head", "classification_head")
"""What the head that scores is called in transformers' models for sequence classification."""


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A reward model that fits the policy, not loaded yet."""

    name: str
    """As alignment.reward_model names it."""
    place: str
    """A folder, or a name on the hub."""
    base: str | None
    """Of an adapter the model that it belongs to: a folder or a name on the hub."""
    pad: int
    """The policy's token that rows are filled up with."""
    template: str | None
    """The chat template that lies with it."""


def find_reward_model(
    name: str, policy: str, tokenizer: Any, table: ModelTable, pad: int
) -> RewardModel:
    """Look at the reward model `name` without loading it; `policy` is the name of the model that trains, `tokenizer`
    and `pad` (the token that rows are filled up with) are that one's.

    Raises:
        ModelError: it is not there, gives no single score, or has other tokens than the policy.
    """
    place = _place(name, table)
    folder = Path(place)
    adapter = _json(folder / "adapter_config.json") if folder.is_dir() else None
    base = None
    if adapter is not None:
        base = _check_adapter(name, folder, adapter)
    else:
        _check_config(name, _config(name, place, table))
    template = _check_tokens(name, place, base, policy, tokenizer, table)
    return RewardModel(name, place, base, pad, template)


def _place(name: str, table: ModelTable) -> str:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if folder.exists():
        raise ModelError(f"alignment.reward_model: {name} is a file; a reward model is a folder")
    # One on the hub is owner/name; a word alone is a folder that is not there.
    if is_path(name) or name.count("/") != 1:
        raise ModelError(
            f"alignment.reward_model: there is no {name}. A training of stage rm leaves one in its `output` folder"
        )
    return cached_folder_of(name, table) or name


def cached_folder_of(name: str, table: ModelTable) -> str | None:
    """Where the hub's cache holds a model of any revision's default."""
    found = cached_folder(name, table.model_copy(update={"model_revision": None}))
    return None if found is None else str(found)


def _check_adapter(name: str, folder: Path, config: dict[str, Any]) -> str:
    """The model that an adapter belongs to."""
    saved = config.get("modules_to_save") or []
    if config.get("task_type") != "SEQ_CLS" or not any(head in saved for head in _HEADS):
        raise ModelError(
            f"alignment.reward_model: {name} is an adapter without a score head (its task is "
            f'{config.get("task_type") or "not told"}). A reward model is trained with method.stage = "rm"'
        )
    base = base_now(str(config.get("base_model_name_or_path") or ""), folder)
    if is_path(base) and not Path(base).expanduser().exists():
        raise ModelError(
            f"alignment.reward_model: {name} is an adapter of {base}, which is not there; set base_model_name_or_path "
            "in its adapter_config.json to where that model is"
        )
    return base


def _check_config(name: str, config: Any) -> None:
    kinds = [str(kind) for kind in getattr(config, "architectures", None) or []]
    if not any("SequenceClassification" in kind for kind in kinds):
        raise ModelError(
            f"alignment.reward_model: {name} has no score head: it is a {', '.join(kinds) or config.model_type}. A "
            'reward model is trained with method.stage = "rm"'
        )
    if config.num_labels != 1:
        raise ModelError(
            f"alignment.reward_model: {name} gives {config.num_labels} numbers for an answer; a reward model gives one"
        )


def _config(name: str, place: str, table: ModelTable) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=table.trust_remote_code)
    except Exception as error:
        raise ModelError(
            f"alignment.reward_model: {name} cannot be read: {first_line(error)}"
        ) from error


def _check_tokens(
    name: str, place: str, base: str | None, policy: str, tokenizer: Any, table: ModelTable
) -> str | None:
    """Raise ModelError where the reward model reads other tokens than the policy writes; returns its chat template."""
    from transformers import AutoTokenizer

    for where in (place, base):
        if where is None:
            continue
        try:
            own = AutoTokenizer.from_pretrained(where, trust_remote_code=table.trust_remote_code)
        except Exception:
            # A folder may come without one; the next place may have it.
            continue
        if own.get_vocab() != tokenizer.get_vocab():
            raise ModelError(
                f"alignment.reward_model: {name} has other tokens than {policy} ({len(own):,} and {len(tokenizer):,}): "
                "it would score answers that it misreads. Train a reward model from a model of the same family"
            )
        return own.chat_template if isinstance(own.chat_template, str) else None
    size = _config(name, base or place, table).get_text_config().vocab_size
    if len(tokenizer) > size:
        raise ModelError(
            f"alignment.reward_model: {name} knows {size:,} tokens and comes without a tokenizer, and {policy} has "
            f"{len(tokenizer):,}: they do not belong together"
        )
    return None


def reads_otherwise(template: str | None, own: str, tokenizer: Any) -> bool:
    """Whether a conversation looks different in a reward model's chat template than in the policy's `own`; one without
    a template takes what it is given."""
    if template is None or template == own:
        return False
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    shown = []
    for jinja in (template, own):
        try:
            shown.append(tokenizer.apply_chat_template(turns, chat_template=jinja, tokenize=False))
        except Exception:
            # A template may refuse what another takes; that it is another one is known already.
            return True
    return bool(shown[0] != shown[1])


def _json(file: Path) -> dict[str, Any] | None:
    try:
        read = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {first_line(error)}") from None
    return read if isinstance(read, dict) else {}


class Scorer:
    """A reward model that scores answers."""

    def __init__(self, model: Any, pad: int, template: str | None = None) -> None:
        """`model` is one for sequence classification with one label; rows are padded with `pad`. `template` is the chat
        template that it knows."""
        self.model = model
        self.template = template
        self._pad = pad

    def scores(self, rows: Sequence[Any]) -> Any:
        """The scores of some rows, each a tensor of the token ids of a prompt and its answer: a tensor of as many
        numbers, fp32, on the host. An answer without its end is scored at its last token."""
        device = self.model.device
        ids = pad_right(rows, self._pad).to(device)
        mask = pad_right([torch.ones_like(row) for row in rows]).to(device)
        with torch.no_grad():
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits.squeeze(-1).float().cpu()


def load_scorer(
    found: RewardModel, table: ModelTable, dtype: Any, device: str, policy: Any
) -> Scorer:
    """Load a reward model that was found; it needs no gradients, and shares the frozen weights of `policy` that are its
    own.

    Raises:
        ModelError: it cannot be loaded, or its files lack its head.
    """
    from transformers import AutoModelForSequenceClassification

    # An adapter's base may be the policy's: it comes to the host first, so that no GPU has to hold both.
    straight = device == "cuda" and found.base is None
    options: dict[str, Any] = {"device_map": {"": 0}} if straight else {}
    place = found.place if found.base is None else _base_place(found, table)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            place,
            dtype=dtype,
            num_labels=1,
            trust_remote_code=table.trust_remote_code,
            output_loading_info=True,
            **options,
        )
        if found.base is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, found.place)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"alignment.reward_model: {found.name} cannot be loaded: {first_line(error)}"
        ) from error
    lacking = sorted(info["missing_keys"])
    if found.base is None and lacking:
        raise ModelError(
            f"alignment.reward_model: {found.name} lacks {len(lacking)} of its weights ({lacking[0]} is one)"
        )
    share_weights(policy, model)
    model.to(policy.device)
    pad = _pad_of(model, found)
    model.config.get_text_config().pad_token_id = pad
    model.requires_grad_(False)
    return Scorer(without_dropout(model).eval(), pad, found.template)


def _pad_of(model: Any, found: RewardModel) -> int:
    """The token by which the reward model was taught where a row ends: an adapter's base has nothing to say of it."""
    own = model.config.get_text_config().pad_token_id
    known = model.get_input_embeddings().weight.shape[0]
    return own if found.base is None and own is not None and 0 <= own < known else found.pad


def _base_place(found: RewardModel, table: ModelTable) -> str:
    base = str(found.base)
    folder = Path(base).expanduser()
    return str(folder) if folder.exists() else cached_folder_of(base, table) or base
