"""bitsandbytes' optimizers, and paged ones that still are when they have taken up a checkpoint."""

from typing import Any

from bitsandbytes.optim import AdamW, Lion

__all__ = ["AdamW", "Lion", "PagedAdamW", "PagedLion"]


class PagedAdamW(AdamW):  # type: ignore[misc]
    """bitsandbytes' AdamW with states in memory that moves between GPU and host.

    Its own load_state_dict puts the states of a checkpoint into the GPU's memory for good.
    """

    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
        """Take up the states of a checkpoint, those that are large in paged memory."""
        super().load_state_dict(state_dict, move_to_device=False)
        _page_states(self)


class PagedLion(Lion):  # type: ignore[misc]
    """The same of its Lion."""

    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
        """Take up the states of a checkpoint, those that are large in paged memory."""
        super().load_state_dict(state_dict, move_to_device=False)
        _page_states(self)


def _page_states(optimizer: Any) -> None:
    for weight, state in optimizer.state.items():
        for name in state.keys() & {"state1", "state2"}:
            pages = optimizer.get_state_buffer(weight, dtype=state[name].dtype)
            state[name] = pages.copy_(state[name])
