"""Programs and files that tests use and that are not the project's own. `just setup-interop` installs them."""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

PACKAGES: Final = Path(__file__).parents[2] / ".interop"
SETUP: Final = "run `just setup-interop`"


def skip_or_fail(missing: str) -> NoReturn:
    """Skip the test because something is not installed, or fail it if CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def needs(program: str) -> str:
    """Return the path of a program; skips the test where it is not installed, or fails it if CI=true."""
    return shutil.which(program) or skip_or_fail(f"{program} is not installed; {SETUP}")


def needs_file(name: str) -> Path:
    """Return the path of a file or folder in `PACKAGES`; skips the test where it is missing, or fails it if CI=true."""
    path = PACKAGES / name
    return path if path.exists() else skip_or_fail(f"{path.relative_to(PACKAGES.parent)} does not exist; {SETUP}")
