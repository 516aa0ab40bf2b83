"""Masking in C and in Python."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from websockets.speedups import apply_mask

from sdpx.relay.websocket.mask import unmask_in_python
from tests.harness.frames import MASK

MAX_BYTES: Final = 4096
MAX_FRAGMENTS: Final = 8
MASKS: Final = st.sampled_from([bytes(4), MASK]) | st.binary(min_size=4, max_size=4)
Plain = tuple[int, bytes]  # a frame's first byte and its payload


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_in_python_equals_masking_in_c(data: bytes, mask: bytes) -> None:
    """For every length modulo 4."""
    assert unmask_in_python(data, mask) == apply_mask(data, mask)
    assert unmask_in_python(unmask_in_python(data, mask), mask) == data
