"""The value head: what a policy expects to be paid for an answer, token by token."""

from typing import Any

import torch

NAME = "value_head"


class ValueHead(torch.nn.Module):  # type: ignore[misc]
    """A number for each hidden state. It begins at 0 everywhere, so that the first advantages are the rewards alone."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.summary = torch.nn.Linear(hidden, 1)
        torch.nn.init.zeros_(self.summary.weight)
        torch.nn.init.zeros_(self.summary.bias)

    def forward(self, hidden: Any) -> Any:
        """… × hidden becomes …, in the head's own type (fp32), whatever the model computes in."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.summary(hidden.to(self.summary.weight.dtype)).squeeze(-1)


def attach(causal: Any) -> ValueHead:
    """Give a causal language model (the one inside of adapters) a value head, which trains and is clipped with it and
    is left out where its weights are saved."""
    head = ValueHead(causal.config.get_text_config().hidden_size)
    head.to(causal.device)
    causal.add_module(NAME, head)
    names = {f"{NAME}.{name}" for name in head.state_dict()}
    causal._keys_to_ignore_on_save = {*(causal._keys_to_ignore_on_save or ()), *names}
    return head
