"""The result of one check, and the conclusion from all of them. Pure."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from typing import Any, Final, Literal

from msgspec import Struct

from sdpx.errors import Ending, ExitStatus
from sdpx.remedies import REMEDIES

Result = Literal["ok", "warning", "failed", "skipped"]
Evidence = dict[str, Any]


class Check(Struct, frozen=True):
    """The result of one check of `target`: a sentence, the evidence, and for a problem its code, remedy and exit status."""

    name: str
    target: str
    result: Result
    sentence: str
    evidence: Evidence = {}
    code: str = ""
    remedy: str = ""
    status: ExitStatus = ExitStatus.OK
    seconds: float = 0.0


def passed(name: str, target: str, sentence: str, **evidence: Any) -> Check:
    """Return a check that found no problem."""
    return Check(name, target, "ok", sentence, evidence)


def skipped(name: str, target: str, reason: str) -> Check:
    """Return a check that could not be made, or was not asked for."""
    return Check(name, target, "skipped", reason)


def problem(name: str, target: str, code: str, sentence: str, **evidence: Any) -> Check:
    """Return a check that found the problem `code` of the table of remedies."""
    known = REMEDIES[code]
    return Check(name, target, known.result, sentence, evidence, code, known.remedy, known.status)


def refused(name: str, target: str, ending: Ending, **evidence: Any) -> Check:
    """Return a check that ended as a peer would have; the remedy is that of its code, or already in its reason."""
    remedy = REMEDIES[ending.code].remedy if ending.code in REMEDIES else ""
    return Check(name, target, "failed", ending.reason, evidence, ending.code, remedy, ending.status)


def exit_status(checks: Sequence[Check]) -> ExitStatus:
    """Return the exit status: of the first failure, else whether there were warnings."""
    failed = next((each for each in checks if each.result == "failed"), None)
    if failed is not None:
        return failed.status
    return ExitStatus.WARNINGS if any(each.result == "warning" for each in checks) else ExitStatus.OK


def summarize(checks: Sequence[Check]) -> str:
    """Return one sentence: that all is well, or the first remedy."""
    problems = [each for each in checks if each.result == "failed"] or [
        each for each in checks if each.result == "warning"
    ]
    if not problems:
        return "No problem found"
    first = problems[0]
    count = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    advice = first.remedy or first.sentence
    kind = "Failed" if first.result == "failed" else "Warning"
    target = "" if first.target in advice else f" {first.target}"
    return f"{kind}: {first.name}{target}{count}. First: {advice[:1].lower()}{advice[1:]}"


# ---- report ---------------------------------------------------------------------------------------------------------

_ADDRESS: Final = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"
)


def shorten_addresses(value: Any) -> Any:
    """Return a JSON value with the host part of each address that is not special replaced: 203.0.x.x, 2001:db8::x."""
    if isinstance(value, str):
        return _ADDRESS.sub(lambda found: _shortened(found[0]), value)
    if isinstance(value, dict):
        return {shorten_addresses(key): shorten_addresses(each) for key, each in value.items()}
    return [shorten_addresses(each) for each in value] if isinstance(value, list | tuple) else value


def _shortened(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if address.is_loopback or address.is_unspecified:
        return text
    if isinstance(address, IPv4Address):
        return ".".join([*text.split(".")[:2], "x", "x"])
    return ":".join(group.lstrip("0") or "0" for group in address.exploded.split(":")[:2]) + "::x"
