"""The number of Hypothesis examples of a test, relative to the profile's."""

from typing import Any

from hypothesis import HealthCheck, settings


def examples(factor: float, **options: Any) -> settings:
    """Return settings with `factor` times as many examples as the profile; slow generation of examples is allowed."""
    count = max(1, round(settings().max_examples * factor))
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow], **options)
