"""Our strategies on the engine in small, and what was tried on the way to them."""

from collections.abc import Mapping, Sequence
from functools import partial

from bench.search.curves import Drawn, noisy
from bench.search.measure import Strategy
from bench.search.simulate import REGULAR, Engine, Outcome
from core.search.halving import (
    HalvingSettings,
    decide,
    decide_asha,
    first_look,
    first_until,
)

GPUS = 8
"""What `asha` is measured with: it is chosen for that many or more."""


def halving(
    drawn: Sequence[Drawn],
    settings: HalvingSettings | None = None,
    *,
    look: bool = True,
    regular: int = REGULAR,
    last: int = 1,
    ties: bool = False,
) -> Outcome:
    """Our rule; `look`: whether trials are evaluated on their way to the first rung; `last`, `ties`: see `Engine`."""
    given = settings or HalvingSettings()
    looks = (first_look(given),) if look else ()
    rule = partial(decide, given)
    return Engine(
        drawn, rule, first_until(given), looks=looks, regular=regular, last=last, ties=ties
    ).run()


def all_by_last_three(drawn: Sequence[Drawn]) -> Outcome:
    """Every trial to its end; the mean of the last three evaluations says which is named."""
    return Engine(drawn, lambda _entrants, _expected: None, 1.0, last=3).run()


def asha(drawn: Sequence[Drawn], gpus: int = GPUS) -> Outcome:
    """Our rule without waiting, on so many GPUs."""
    settings = HalvingSettings()
    rule = partial(decide_asha, settings)
    looks = (first_look(settings),)
    return Engine(drawn, rule, first_until(settings), looks=looks, gpus=gpus).run()


def noised(strategy: Strategy, sigma: float) -> Strategy:
    """A strategy whose trials are measured with noise of `sigma` nats."""
    return lambda drawn: strategy(noisy(drawn, sigma, f"{sigma} {drawn[0].run.setting}"))


def variants() -> Mapping[str, Strategy]:
    """What was tried, each one thing away from the rule."""
    plain = HalvingSettings(first_rung=0.1, pace=0, growth=3, last_rung=0.9)
    changed = {
        "rungs at 10, 30, 90 %, revival, no catching up": plain,
        "catching up, rungs at 10, 30, 90 %": HalvingSettings(0.1, growth=3, last_rung=0.9),
        "first rung at 10 %": HalvingSettings(first_rung=0.1),
        "first rung at 4 %": HalvingSettings(first_rung=0.04),
        "no catching up": HalvingSettings(pace=0),
        "an eighth of the pace": HalvingSettings(pace=0.125),
        "half of the pace": HalvingSettings(pace=0.5),
        "the whole pace": HalvingSettings(pace=1),
        "the same pace for any number of trials": HalvingSettings(pace_growth=0),
        "rungs three times further each": HalvingSettings(growth=3),
        "rungs √2 times further each": HalvingSettings(growth=2**0.5),
        "no rung after a half": HalvingSettings(last_rung=0.5),
        "reduction 2": HalvingSettings(reduction=2),
        "reduction 4": HalvingSettings(reduction=4),
        "one finalist": HalvingSettings(finalists=1),
        "three finalists": HalvingSettings(finalists=3),
    }
    rows: dict[str, Strategy] = {"the rule": halving}
    rows |= {name: partial(halving, settings=s) for name, s in changed.items()}
    rows["named by the mean of its last three evaluations"] = partial(halving, last=3)
    rows["of what noise explains the lowest rate is named"] = partial(halving, ties=True)
    rows["no evaluation before the first rung"] = partial(halving, look=False)
    rows["evaluated at rungs only"] = partial(halving, regular=0)
    rows["evaluated at every checkpoint"] = partial(halving, regular=50)
    return rows
