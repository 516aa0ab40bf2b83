"""aiortc without PyAV, whose libraries for audio and video take 0.1 s to load and several megabytes.

The peer itself answers the media sections of an offer (see `negotiation/description.py`): aiortc gets data sections only.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from sdpx.peer.webrtc.versions import is_tested

_MODULES: Final = ("av", "av.frame", "av.packet", "av.video", "av.video.codeccontext")


@contextmanager
def media_placeholders() -> Iterator[None]:
    """Let `import av` get empty classes within the block, unless PyAV is loaded or another aiortc may import more of it."""
    if "av" in sys.modules or not is_tested("aiortc"):
        yield
        return
    for name in _MODULES:
        module = ModuleType(name)
        vars(module)["__getattr__"] = lambda attribute: type(attribute, (), {})
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in _MODULES:
            del sys.modules[name]
