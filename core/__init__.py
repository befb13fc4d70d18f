"""tunedeck's engine. `from core import Study` is the Python interface; see `core.api`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.api import SearchError as SearchError
    from core.api import Study as Study

__all__ = ["SearchError", "Study"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: every process of tunedeck imports this package, and few need it.
    if name in __all__:
        from core import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
