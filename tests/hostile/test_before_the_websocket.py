"""Attacks on the request: whatever comes before the WebSocket opens is answered or cut, within bounds."""

import pytest

from tests.hostile.scene import Scene

pytestmark = pytest.mark.e2e


async def test_garbage(scene: Scene) -> None:
    """Bytes that are no HTTP."""
    client = await scene.tcp()
    await client.send(bytes(range(256)) * 8)
    status, _, _ = await client.response()
    assert status == 400
