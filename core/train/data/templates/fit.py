"""Whether a named template fits a tokenizer, before anything is loaded for it."""

from typing import Any

from core.train.data.templates import FALLBACK, TEMPLATES, TOKENS
from core.train.errors import SettingsError


def check_fit(template: str, tokenizer: Any) -> None:
    """Check that `template`, a value of model.template, is written in tokens that the tokenizer has.

    Raises:
        SettingsError: it is another family's; the message names what is missing and what would fit.
    """
    if template in ("auto", FALLBACK):
        return
    missing = _missing(template, tokenizer)
    if not missing:
        return
    fitting = fitting_templates(tokenizer)
    own = ['"auto" (the tokenizer\'s own)'] if tokenizer.chat_template else []
    named = [f'"{name}"' for name in fitting[:6]]
    better = ", ".join([*own, *named]) or f'"{FALLBACK}"'
    raise SettingsError(
        f'model.template = "{template}" does not fit the tokenizer of this model, which lacks its '
        f"{'token' if len(missing) == 1 else 'tokens'} {' and '.join(missing)}: the model was made with another "
        f"format. What fits: {better}"
    )


def fitting_templates(tokenizer: Any) -> list[str]:
    """The named templates all of whose tokens the tokenizer has, those of most tokens first; templates of words alone,
    which fit every tokenizer, are left out."""
    names = [name for name in TEMPLATES if TOKENS[name] and not _missing(name, tokenizer)]
    return sorted(names, key=lambda name: -len(TOKENS[name]))


def note(template: str, tokenizer: Any) -> str | None:
    """What there is to know of the template that was taken, as a sentence; None where it is the one that was named and
    the tokenizer has its tokens."""
    taken = FALLBACK if template == "auto" and not tokenizer.chat_template else template
    if taken == "auto":
        return None
    sentences = []
    if template == "auto":
        sentences.append(f"the tokenizer brings no chat template: {taken} is used")
    missing = _missing(taken, tokenizer)
    if missing:
        sentences.append(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} no single "
            f"{'token' if len(missing) == 1 else 'tokens'} of this tokenizer, so that each turn takes a few more"
        )
    return "; ".join(sentences) or None


def _missing(template: str, tokenizer: Any) -> list[str]:
    return [token for token in TOKENS[template] if not _is_token(token, tokenizer)]


def _is_token(token: str, tokenizer: Any) -> bool:
    """Whether text that holds it becomes that token."""
    known = tokenizer.convert_tokens_to_ids(token)
    if known is None or known == tokenizer.unk_token_id:
        return False
    return known in tokenizer.encode(token, add_special_tokens=False)
