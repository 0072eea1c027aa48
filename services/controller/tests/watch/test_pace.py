"""How often Models are looked at of which nothing is heard."""

from __future__ import annotations

from cloudach_controller.settings import Ray
from cloudach_controller.watch.pace import Pace

RAY = Ray(poll_s=2, steady_poll_s=15, polls_per_s=20)


def test_looks_together_have_a_bound_however_many_models_there_are() -> None:
    pace = Pace(RAY, chance=lambda low, high: 1.0)
    assert pace.pause_s(("n", "a"), moving=False, models=300) == 15
    assert pace.pause_s(("n", "a"), moving=False, models=1000) == 50
    pauses = [pace.pause_s(("n", f"m{number}"), moving=True, models=1000) for number in range(200)]
    assert (pauses[0], pauses[-1]) == (2, 10)
    for number in range(1, 200):
        pace.pause_s(("n", f"m{number}"), moving=False, models=1000)
    assert pace.pause_s(("n", "m0"), moving=True, models=1000) == 2
    pace.pause_s(("n", "gone"), moving=True, models=1000)
    pace.forget(("n", "gone"))


def test_models_that_began_together_are_not_looked_at_together_for_ever() -> None:
    pace = Pace(RAY)
    pauses = {pace.pause_s(("n", f"m{number}"), moving=False, models=100) for number in range(100)}
    assert len(pauses) > 90
    assert 13 < min(pauses) < max(pauses) < 17
