"""Named chat templates, for tokenizers that bring none and for who asks for one by name."""

from core.train.data.templates.named import CHATML, TEMPLATES, TOKENS

__all__ = ["CHATML", "FALLBACK", "TEMPLATES", "TOKENS"]

FALLBACK = "chatml"
"""What `auto` takes where the tokenizer brings no template. It is refused by no tokenizer: base models know no format,
and learn this one's markers from a few tokens each as well."""
