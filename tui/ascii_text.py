"""Text for terminals that show nothing but ASCII. Pure."""

_SPELLED = str.maketrans(
    {
        "–": "-", "—": "-", "×": "x", "√": "sqrt ", "≤": "<=", "≥": ">=", "≈": "~", "…": "...", "·": "-",
        "β": "beta", "γ": "gamma", "λ": "lambda", "ε": "eps", "κ": "k", "η": "eta", "→": "->", "●": "*", "•": "*",
        "“": '"', "”": '"', "‘": "'", "’": "'", "é": "e",
    }
)  # fmt: skip


def ascii_text(text: str) -> str:
    """`text` with its signs spelled in ASCII; what has no spelling becomes a question mark."""
    if text.isascii():
        return text
    return text.translate(_SPELLED).encode("ascii", "replace").decode("ascii")
