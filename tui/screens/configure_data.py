"""Configure's look at the data: what the draft would learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.data_look import DataLook, same_data
from tui.screens.configure_search import ConfigureSearch

if TYPE_CHECKING:
    from core.profile import Profile


class ConfigureData(ConfigureSearch):
    """The form with a view of the data. It is read when somebody asks, never while they type."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[Profile, DataLook] | None = None
        """What was seen last, and of which profile."""

    def action_show_data(self) -> None:
        """d: the data as the training sees it."""
        profile = self._review.profile
        if profile is None:
            self.say("Put right what is wrong first: n goes there.", "warning")
            return
        from tui.screens.data import DataScreen

        def keep(look: DataLook) -> None:
            self._seen = (profile, look)

        known = self._seen
        look = known[1] if known is not None and same_data(known[0], profile) else None
        self.app.push_screen(DataScreen(profile, look, keep=keep))
