"""A paged optimizer that is still one after it has taken up a checkpoint."""

from typing import Any

from bitsandbytes.optim import AdamW


class PagedAdamW(AdamW):  # type: ignore[misc]
    """bitsandbytes' AdamW with states in memory that moves between GPU and host.

    Its own load_state_dict puts the states of a checkpoint into the GPU's memory for good.
    """

    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
        """Take up the states of a checkpoint, those that are large in paged memory."""
        super().load_state_dict(state_dict, move_to_device=False)
        for weight, state in self.state.items():
            for name in state.keys() & {"state1", "state2"}:
                pages = self.get_state_buffer(weight, dtype=state[name].dtype)
                state[name] = pages.copy_(state[name])
