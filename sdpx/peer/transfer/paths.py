"""Names of files that come from the other side: the paths below a directory that they may be written to. Pure.

A name is a path relative to the directory, in bytes, its components joined by `/`. A component is neither empty, `.` nor `..`,
has no NUL and at most 255 bytes, and is no device name of Windows (`CON`, `NUL`, `COM1`). That no component is a link is
checked where it is opened.
"""

import hashlib
import re
from typing import Final

MAX_COMPONENT: Final = 255  # bytes, on most file systems
MAX_PATH: Final = 4096 - 256
MAX_DEPTH: Final = 256
PART: Final = b".part"
_DEVICES: Final = re.compile(rb"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])", re.IGNORECASE)


class UnsafeName(Exception):
    """A name cannot be used; the text is the reason, without the name."""


def components(name: bytes) -> tuple[bytes, ...]:
    """Return the components of a name. Raises `UnsafeName`."""
    if name.startswith(b"/"):
        raise UnsafeName("the name is absolute")
    if len(name) > MAX_PATH:
        raise UnsafeName(f"the path has {len(name)} bytes, more than {MAX_PATH}")
    parts = tuple(name.split(b"/"))
    if len(parts) > MAX_DEPTH:
        raise UnsafeName(f"the path has {len(parts)} components, more than {MAX_DEPTH}")
    for part in parts:
        if flaw := _flaw(part):
            raise UnsafeName(flaw)
    return parts


def _flaw(part: bytes) -> str:
    if part in (b"", b".", b".."):
        return f"the path has the component '{part.decode()}'"
    if b"\0" in part:
        return "the name has a NUL"
    if len(part) > MAX_COMPONENT:
        return f"the name has {len(part)} bytes, more than {MAX_COMPONENT}"
    return "the name is that of a device" if _DEVICES.fullmatch(part) else ""


def part_name(name: bytes) -> bytes:
    """Return the name of a file while it is incomplete: that of the file with `.part`, shortened where it is too long."""
    if len(name) + len(PART) <= MAX_COMPONENT:
        return name + PART
    mark = b"-" + hashlib.sha256(name).hexdigest()[:16].encode()
    return name[: MAX_COMPONENT - len(mark) - len(PART)] + mark + PART
