"""The versions of what forecasts depend on."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_VERSION = re.compile(r"""^__version__\s*=\s*['"]([^'"]+)['"]""", re.MULTILINE)


@cache
def torch_version() -> str:
    """PyTorch's version as torch.__version__ says it, without importing it; empty where that cannot be known.

    The package's metadata leaves out what it was built for (2.8.0 for 2.8.0+cu128).
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = _VERSION.search(text)
    return found[1] if found else ""
