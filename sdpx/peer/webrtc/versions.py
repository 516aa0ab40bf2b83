"""The versions of aiortc, aioice and pyOpenSSL whose private parts the peer uses; with others it does without some features."""

import re
from importlib.metadata import version
from typing import Final, Literal

Feature = Literal["trickle_ice", "dtls_diagnosis", "flow_control", "datagram_batches"]
TESTED: Final = {"aiortc": (1, 16), "aioice": (0, 13), "pyOpenSSL": (26,)}
NEEDS: Final[dict[Feature, tuple[str, ...]]] = {
    "trickle_ice": ("aiortc", "aioice"),
    "dtls_diagnosis": ("aiortc",),
    "flow_control": ("aiortc",),
    "datagram_batches": ("aiortc", "aioice", "pyOpenSSL"),
}


def is_tested(library: str) -> bool:
    """Whether the installed version of a library has the private parts that the peer uses."""
    release = tuple(int(number) for number in re.findall(r"[0-9]+", version(library)))
    return release[: len(TESTED[library])] == TESTED[library]


def fits(feature: Feature) -> bool:
    """Whether the installed versions have the private parts that a feature needs."""
    return unfit_library(feature) is None


def unfit_library(feature: Feature) -> tuple[str, str] | None:
    """Return a library that does not fit a feature, and its version; None if all fit."""
    return next(((name, version(name)) for name in NEEDS[feature] if not is_tested(name)), None)
