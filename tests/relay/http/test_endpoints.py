"""Health, readiness and metrics, on the port of the relay or on the metrics port."""

from collections.abc import Callable

import pytest
import trio
from prometheus_client.openmetrics import parser as openmetrics
from trio.testing import MockClock, memory_stream_pair

from sdpx.relay.acceptor import Acceptor
from sdpx.relay.admission import Admission
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.stats import RELAY_SECONDS, RelayStats
from tests.harness.frames import upgrade_request
from tests.harness.metrics import scrape
from tests.harness.relay import RawClient, RelayHarness, relay_harness


async def test_running_relay_is_alive_and_ready(autojump_clock: MockClock) -> None:
    async with relay_harness() as relay:
        for path in ("/healthz", "/readyz", "/healthz?verbose"):
            assert (await relay.raw().page(path))[0] == 200


async def test_stopping_relay_is_alive_but_not_ready(autojump_clock: MockClock) -> None:
    """Its metrics stay available."""
    async with relay_harness() as relay:
        a = relay.narrow()  # a client that does not read delays the end
        await a.open()
        relay.acceptor.stop()
        assert (await relay.raw().page("/healthz"))[0] == 200
        assert (await relay.raw().page("/readyz"))[0] == 503
        assert (await relay.raw().page("/metrics"))[0] == 200


async def test_head_request_gets_no_body(autojump_clock: MockClock) -> None:
    async with relay_harness() as relay:
        client = relay.raw()
        await client.send(b"HEAD /healthz HTTP/1.1\r\nHost: relay.test\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\n")


async def test_page_requests_are_logged_at_debug_level(autojump_clock: MockClock) -> None:
    """Frequent health checks must not fill the log."""
    async with relay_harness() as relay:
        await relay.raw().page("/healthz")
        [line] = relay.log.of("http_request")
        assert (line["level"], line["path"], line["status"]) == ("debug", "/healthz", 200)


async def test_gauges_count_connections_clients_and_pairs(autojump_clock: MockClock) -> None:
    """The connection of the scraper counts, too."""
    async with relay_harness() as relay:
        await relay.pair()
        await relay.client()
        seen = await scrape(relay)
    assert (seen["sdpx_connections"], seen["sdpx_clients"], seen["sdpx_pairs"]) == (4, 3, 1)
    assert (seen["sdpx_clients_connected_total"], seen["sdpx_pairings_total"]) == (3, 1)


async def test_counters_count_relayed_frames(autojump_clock: MockClock) -> None:
    """Frames are counted by type, in bytes as received, and in a histogram of relay times."""
    async with relay_harness() as relay:
        a, b = await relay.pair()
        for _ in range(3):
            await a.socket.send_message('{"type":"offer","sdp":"é"}')
            await b.receive()
        await b.send(type="candidate", candidate=None)
        await a.receive()
        await b.send(type="ping")
        await b.receive()
        seen = await scrape(relay)
    assert [seen[f"sdpx_relayed_total {kind}"] for kind in ("offer", "answer", "candidate")] == [3, 0, 1]
    assert seen["sdpx_relayed_bytes_total"] == 3 * 27 + len('{"type": "candidate", "candidate": null}')
    assert seen["sdpx_relay_seconds_count"] == 4
    assert seen["sdpx_relay_seconds_bucket +Inf"] == 4


async def test_counters_count_refusals_by_code(autojump_clock: MockClock) -> None:
    """Refusals of frames, pairings, relaying and connections count alike."""
    async with relay_harness() as relay:
        a = await relay.client("/?id=a")
        await a.socket.send_message("{")
        await a.send(type="pair_request", target_id="nobody")
        await a.send(type="offer", sdp="x")
        for _ in range(3):
            await a.receive()
        taken = relay.raw()
        await taken.send(upgrade_request("/?id=a"))
        assert (await taken.response())[0] == 409
        seen = await scrape(relay)
    for code in ("bad_json", "target_not_found", "not_paired", "id_taken"):
        assert seen[f"sdpx_refusals_total {code}"] == 1


async def test_metrics_count_evictions_and_send_queues(autojump_clock: MockClock) -> None:
    """The send queue of a client that does not read fills up until the relay disconnects it."""
    async with relay_harness(Limits(send_queue_frames=5, write_timeout=10)) as relay:
        slow, a = relay.narrow(), await relay.client()
        await slow.open("/?id=slow")
        await a.send(type="pair_request", target_id="slow")
        for _ in range(3):
            await a.send(type="offer", sdp="x" * 1000)
        await trio.sleep(1)
        before = await scrape(relay)
        await trio.sleep(20)
        after = await scrape(relay)
    assert before["sdpx_send_queue_frames"] == before["sdpx_send_queue_frames_max"] == 4  # one is half written
    assert 3000 < before["sdpx_send_queue_bytes"] < 4500
    assert (before["sdpx_evictions_total slow"], after["sdpx_evictions_total slow"]) == (0, 1)
    assert (after["sdpx_send_queue_frames"], after["sdpx_send_queue_bytes"]) == (0, 0)


async def test_metrics_are_rendered_once_a_second(autojump_clock: MockClock) -> None:
    """However many scrapers ask; each format has its page."""
    async with relay_harness() as relay:
        first = await scrape(relay)
        await relay.client()
        assert await scrape(relay) == first
        _, text = await relay.raw().page("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n")
        assert "sdpx_clients 1.0" in text
        await trio.sleep(1)
        assert (await scrape(relay))["sdpx_clients"] == 1


async def test_counter_counts_dropped_log_lines(autojump_clock: MockClock) -> None:
    async with relay_harness() as relay:
        relay.log.room = 0
        await relay.client()
        assert (await scrape(relay))["sdpx_log_lines_dropped_total"] >= 1


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=1.0x", ";;", "\x7f", "x" * 5000])
async def test_invalid_accept_header_gets_plain_text(autojump_clock: MockClock, accept: str) -> None:
    async with relay_harness() as relay:
        status, text = await relay.raw().page("/metrics", f"Accept: {accept}\r\n")
    assert status == 400 or "sdpx_clients 0.0" in text


async def test_metrics_are_available_as_openmetrics(autojump_clock: MockClock) -> None:
    """The Accept header selects the format."""
    async with relay_harness() as relay:
        _, text = await relay.raw().page("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n")
    assert text.endswith("# EOF\n")
    assert any(family.name == "sdpx_relayed" for family in openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("path", "status"), [("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/", 404)])
async def test_metrics_port_has_the_pages_and_nothing_else(autojump_clock: MockClock, path: str, status: int) -> None:
    """The port of the clients then has no metrics."""
    async with relay_harness() as relay:
        alone = Acceptor(Limits(), relay.relay, admission=Admission(relay.relay, metrics_port=True))
        assert (await dial(relay, alone.serve_metrics).page(path))[0] == status
        assert (await dial(relay, alone.serve).page("/metrics"))[0] == 404
        client = dial(relay, alone.serve_metrics)
        await client.send(upgrade_request("/metrics"))
        assert (await client.response())[0] == 200


def dial(relay: RelayHarness, handle: Callable[[trio.abc.Stream], object]) -> RawClient:
    ours, theirs = memory_stream_pair()
    relay.nursery.start_soon(handle, theirs)  # type: ignore[arg-type]
    return RawClient(ours)


async def test_silent_connection_to_the_metrics_port_times_out(autojump_clock: MockClock) -> None:
    async with relay_harness(Limits(handshake_timeout=3)) as relay:
        assert await dial(relay, relay.acceptor.serve_metrics).rest() == b""


def test_relay_time_is_counted_in_its_bucket() -> None:
    """An upper bound belongs to its bucket; times beyond the last bound are counted, too."""
    times = RelayStats()
    for seconds in (0.0, RELAY_SECONDS[0], RELAY_SECONDS[1], 1e9):
        times.count_relay_time(seconds)
    assert times.relay_times == [2, 1, *[0] * (len(RELAY_SECONDS) - 2), 1]
