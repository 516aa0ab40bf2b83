"""Hypothesis profiles: a run of the suite is the same every time; only `just fuzz` draws new examples."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("default"), max_examples=100)
settings.register_profile("fuzz", deadline=None, derandomize=False, max_examples=1_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
