"""Short versions of the proofs of `just transfer`, with real processes."""

from pathlib import Path

import pytest

from tests.transfer.__main__ import PROOFS, options

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("proof", "arguments"),
    [
        ("pipe", ["--megabytes", "3"]),
        ("cuts", ["--megabytes", "3", "--cuts", "1", "--pause", "0", "--seed", "3"]),
    ],
)
def test_proof(proof: str, arguments: list[str], tmp_path: Path) -> None:
    PROOFS[proof](tmp_path, options([*arguments, "--seconds", "100"]))
