"""The command palette: every action that works here, by its words."""

from collections.abc import Awaitable, Callable

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.actions import Action, in_contexts

Runner = Callable[[], Awaitable[None]]


class ActionProvider(Provider):
    """Lists the actions of the present screen and of the app."""

    def _actions(self) -> list[Action]:
        contexts = getattr(self.screen, "CONTEXTS", ())
        return [a for a in in_contexts((*contexts, "app")) if a.palette]

    async def discover(self) -> Hits:
        for action in self._actions():
            yield DiscoveryHit(action.words, self._runner(action))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._actions():
            score = matcher.match(action.words)
            if score > 0:
                yield Hit(score, matcher.highlight(action.words), self._runner(action))

    def _runner(self, action: Action) -> Runner:
        screen = self.screen

        async def run() -> None:
            await screen.run_action(action.call)

        return run
