"""The help: what the keys do."""

from typing import get_args

import pytest

from tui.actions import ACTIONS, Context
from tui.screens.help import HelpDialog


@pytest.mark.parametrize("context", get_args(Context))
def test_the_keys_of_every_place_can_be_listed(context: Context) -> None:
    told = "\n".join(line.plain for line in HelpDialog((context,), ascii=False).lines())
    assert all(action.words in told for action in ACTIONS if action.context == context)
