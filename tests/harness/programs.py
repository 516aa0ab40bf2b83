"""Programs of the system that tests run. `just setup-interop` installs them."""

import os
import shutil

import pytest


def needs(program: str) -> str:
    """Return the path of a program; skips the test where it is not installed, or fails it if CI=true."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is missing: `just setup-interop` installs it")
        pytest.skip(f"{program} is not installed: `just setup-interop` installs it")
    return path
