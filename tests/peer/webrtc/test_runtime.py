"""WebRtcRuntime: jobs inside the asyncio loop, and the features that the installed libraries lack."""

from types import ModuleType

import pytest
import trio

from sdpx.log import Log
from sdpx.peer.webrtc import peer_connection, versions
from sdpx.peer.webrtc.runtime import in_asyncio, open_webrtc_runtime
from tests.harness.log import LogRecorder


def load() -> ModuleType:
    return peer_connection


async def test_jobs_run_inside_the_asyncio_loop() -> None:
    log, results = LogRecorder(), list[int]()

    async def job() -> None:
        results.append(await in_asyncio(int, "7"))

    async with open_webrtc_runtime(load, Log(log.put, trio.current_time)) as runtime:
        await runtime.run_and_wait(job)
        assert results == [7]
        await runtime.run(job)
        await runtime.run_and_wait(job)
    assert results == [7, 7, 7]
    assert log.events == []


async def test_an_unavailable_feature_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning for each feature names the library and the installed version; the runtime works all the same."""
    monkeypatch.setattr(versions, "version", {"aiortc": "1.16.0", "aioice": "0.13.0", "pyOpenSSL": "25.1"}.__getitem__)
    log = LogRecorder()
    async with open_webrtc_runtime(load, Log(log.put, trio.current_time)) as runtime:
        await runtime.loaded()
        (line,) = log.of("webrtc_feature_unavailable")
        assert line["level"] == "warning"
        assert (line["feature"], line["library"], line["version"]) == ("datagram_batches", "pyOpenSSL", "25.1")
        monkeypatch.setattr(versions, "version", {"aiortc": "1.17.0", "aioice": "0.13.0"}.__getitem__)
        assert peer_connection.unavailable_features().keys() == versions.NEEDS.keys()
