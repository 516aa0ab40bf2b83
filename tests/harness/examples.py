"""How many examples of a property, and how many cases of a long list, a test runs in the Hypothesis profile of this run."""

import os
import random
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "default")
IS_THOROUGH: Final = PROFILE != "default"


def examples(factor: float, **options: Any) -> settings:
    """Return settings with `factor` times as many examples as the profile; slow generation of examples is allowed.

    The profile `default` has no more for any test: what needs more gets them in the others.
    """
    count = max(1, round(settings().max_examples * (factor if IS_THOROUGH else min(1, factor))))
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow], **options)


def sample(cases: Sequence[T], count: int) -> list[T]:
    """Return all cases, in order; in the profile `default` only `count` of them, the same ones in each run."""
    if IS_THOROUGH or count >= len(cases):
        return list(cases)
    return [cases[index] for index in sorted(random.Random(count).sample(range(len(cases)), count))]
