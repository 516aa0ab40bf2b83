"""`sdpx bench`: the accounting detects every fault of a relay, the figures are correct, and real relays are measured."""

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from sdpx.bench.accounting import ALTERED, FAULTS, LOST, REORDERED, REPEATED, UNMARKED, Tally, decode_result, percentile
from sdpx.bench.options import MIN_PAYLOAD, BenchOptions
from sdpx.bench.payloads import DIGITS, MASK, MessageStream
from sdpx.bench.report import figures, refused_sentence, table
from sdpx.relay.websocket.mask import unmask
from tests.harness.credentials import secret_file, token
from tests.harness.processes import Program, environment, relay
from tests.harness.tls import write_certificate

SIZE = 300


class Direction:
    """A stream of messages with its tally."""

    def __init__(self, size: int = SIZE, kind: str = "offer") -> None:
        self.tally = Tally()
        self.stream = MessageStream(kind, size, self.tally)

    def make(self) -> bytes:
        """Return the payload of the next message."""
        frame = self.stream.next_frame(0.0)
        head = 4 if len(frame) < 65_546 else 10
        assert frame[head : head + 4] == MASK
        return unmask(frame[head + 4 :], MASK)

    def take(self, *payloads: bytes) -> dict[str, int]:
        for payload in payloads:
            self.stream.receive(payload, 0.001)
        self.stream.finish()
        return self.tally.faults


def relayed(payload: bytes) -> bytes:
    """Return a message as `sdpx serve` relays it."""
    return payload[:-1] + b',"from_peer":true}'


def rewritten(payload: bytes) -> bytes:
    """Return a message as a relay writes it that decodes and encodes."""
    return json.dumps({"from_peer": True} | json.loads(payload)).encode()


@pytest.mark.parametrize("size", [MIN_PAYLOAD, SIZE, 4096, 65_536, 80_000])
@pytest.mark.parametrize("kind", ["offer", "answer"])
def test_message_has_the_requested_size(size: int, kind: str) -> None:
    payload = Direction(size, kind).make()
    assert len(payload) == size
    assert json.loads(payload)["type"] == kind


@pytest.mark.parametrize("carry", [relayed, rewritten])
def test_valid_messages_cause_no_fault(carry: Callable[[bytes], bytes]) -> None:
    direction = Direction()
    assert direction.take(*(carry(direction.make()) for _ in range(5))) == {}
    assert direction.tally.count == 5
    assert direction.tally.latencies == {1000: 5}


@pytest.mark.parametrize("carry", [relayed, rewritten])
@pytest.mark.parametrize(
    ("order", "fault"),
    [([0, 2, 3], LOST), ([0, 1, 2], LOST), ([0, 1, 1, 2, 3], REPEATED), ([0, 2, 1, 3], REORDERED), ([], LOST)],
)
def test_lost_repeated_and_reordered_messages_are_counted(
    carry: Callable[[bytes], bytes], order: list[int], fault: str
) -> None:
    direction = Direction()
    sent = [carry(direction.make()) for _ in range(4)]
    assert direction.take(*(sent[number] for number in order)) == {fault: 4 - len(order) if fault == LOST else 1}


@pytest.mark.parametrize("carry", [relayed, rewritten])
def test_every_altered_byte_is_detected(carry: Callable[[bytes], bytes]) -> None:
    """A change of any byte is a fault, both before and after the encoding of the relay is learned."""
    learned = Direction()
    learned.take(carry(learned.make()))
    for direction, known in ((Direction(), False), (learned, True)):
        good = carry(direction.make())
        for at in range(len(good)):
            direction.tally.faults.clear()
            bad = good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :]
            direction.stream.receive(bad, 0.001)
            assert direction.tally.faults or json.loads(bad) == json.loads(good), (known, at)


def test_message_of_another_pair_is_altered() -> None:
    mine, other = Direction(), Direction()
    mine.make()
    assert mine.take(relayed(other.make())) == {ALTERED: 1, LOST: 1}


def test_number_that_was_not_sent_is_altered() -> None:
    direction = Direction()
    payload = relayed(direction.make())
    assert direction.take(payload, payload.replace(b"0" * DIGITS, b"9" * DIGITS)) == {ALTERED: 1}


@pytest.mark.parametrize("end", [b"}", b',"from_peer":false}', b',"from_peer":1}'])
def test_missing_from_peer_is_detected(end: bytes) -> None:
    direction = Direction()
    assert direction.take(direction.make()[:-1] + end) == {UNMARKED: 1}


def test_refused_message_is_not_lost() -> None:
    direction = Direction()
    direction.make()
    direction.stream.refuse()
    assert not direction.stream.has_pending
    assert direction.take() == {}


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        (range(1, 101), 0.5, 50),
        (range(1, 101), 0.99, 99),
        (range(1, 101), 1.0, 100),
        ([7], 0.5, 7),
        ([1, 1, 1, 9], 0.75, 1),
        ([1, 1, 1, 9], 0.9, 9),
        ([], 0.5, 0),
    ],
)
def test_percentiles(values: Any, share: float, expected: int) -> None:
    assert percentile(Counter(values), share) == expected


def tallies(**relay: Any) -> dict[str, Tally]:
    return {"relay": Tally(**relay), "connect": Tally(), "session": Tally()}


def tally(count: int, rate: float, busy: float, *counters: dict[Any, int]) -> Tally:
    return Tally(count, rate, busy, *map(Counter, counters))


def test_tallies_are_added() -> None:
    """Counts and rates are summed; `busy` is the maximum."""
    total = tally(2, 20.0, 0.5, {1: 2}, {LOST: 1})
    total.add(tally(3, 30.0, 0.7, {1: 1, 5: 2}, {LOST: 1, ALTERED: 2}, {"429": 1}, {"1006": 1}))
    assert total == tally(5, 50.0, 0.7, {1: 3, 5: 2}, {LOST: 2, ALTERED: 2}, {"429": 1}, {"1006": 1})


def test_tally_of_a_load_process_is_decoded() -> None:
    sent = tally(3, 30.0, 0.7, {1: 1, 5: 2}, {LOST: 1}, {"429": 1}, {"1006": 1})
    assert decode_result(msgspec.json.encode(sent)) == sent
    assert decode_result(b"7") == 7


@pytest.mark.parametrize("fault", FAULTS)
def test_any_fault_fails_the_measurement(fault: str) -> None:
    result = figures(BenchOptions(), "ws://x", 1, tallies(count=10, rate=10.0, faults=Counter({fault: 1})))
    assert not result["sound"]
    error = result["error"]
    assert (error["code"], fault in error["reason"], fault in table(result)) == ("bench_failed", True, True)


def test_busy_load_generator_is_reported_as_the_bottleneck() -> None:
    busy, idle = (
        figures(BenchOptions(), "ws://x", 1, tallies(count=10, rate=10.0, busy=share)) for share in (0.95, 0.5)
    )
    assert busy["sound"]
    assert "bottleneck (busy: messages 95%)" in table(busy)
    assert idle["notes"] == []


def test_refusal_names_the_option_to_change() -> None:
    assert "--rate 0" in refused_sentence({"rate_limited": 3})
    assert "--max-clients-per-ip 0" in refused_sentence({"429 too_many_connections": 3})
    assert "--max-clients 0" in refused_sentence({"503 full": 3})


# ---- real relays ------------------------------------------------------------------------------------------------


async def run(*arguments: str) -> tuple[int, Any, str]:
    """Run a short `sdpx bench` to its end; returns status, the object that it printed, and stderr."""
    command = [sys.executable, "-m", "sdpx", "bench", "--format", "json", *arguments]
    with trio.fail_after(45):
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=environment(), stdin=subprocess.DEVNULL
        )
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


@pytest.mark.e2e
async def test_own_relay_is_measured() -> None:
    """Two load processes, three phases: no message is lost, and every figure is present."""
    status, result, stderr = await run(
        "--seconds", "0.5", "--pairs", "5", "--in-flight", "3", "--payload", "70000", "--processes", "2"
    )
    assert (status, result["sound"], result["error"]) == (0, True, None), result
    assert (result["clients"], result["processes"]) == (10, 2)
    assert result["faults"] == dict.fromkeys(FAULTS, 0)
    assert result["messages"] > 10
    assert result["connects_per_s"] > 0
    assert result["sessions_per_s"] > 0
    latency = result["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert "sdpx:" not in stderr
    assert "Traceback" not in stderr


@pytest.mark.e2e
@pytest.mark.parametrize("engine", ["--engine=epoll", "--engine=trio-websocket"])
async def test_relay_of_a_url_is_measured(engine: str) -> None:
    """All clients are disconnected afterwards."""
    async with relay("--rate", "0", engine) as (server, url):
        status, result, _ = await run(url, "--seconds", "0.3", "--pairs", "4")
        assert (status, result["relay"], result["error"]) == (0, url, None)
        connected = server.events.count("client_connected")
        while server.events.count("client_disconnected") < connected:
            await trio.sleep(0.05)
    assert server.events.count("paired") >= 4


@pytest.mark.e2e
async def test_refused_messages_fail_the_measurement() -> None:
    async with relay("--rate", "20") as (_, url):
        status, result, stderr = await run(url, "--seconds", "1", "--pairs", "2")
    assert (status, result["error"]["code"], result["sound"]) == (1, "bench_failed", False)
    assert result["refused"]["rate_limited"] > 0
    assert result["faults"] == dict.fromkeys(FAULTS, 0)
    assert "--rate 0" in stderr


@pytest.mark.e2e
async def test_full_relay_fails_the_measurement() -> None:
    async with relay("--max-clients", "3") as (_, url):
        status, result, stderr = await run(url, "--seconds", "1", "--pairs", "4")
    assert (status, result["error"]["code"]) == (1, "bench_failed")
    assert "--max-clients 0 --max-clients-per-ip 0" in stderr


@pytest.mark.e2e
async def test_relay_that_dies_fails_the_measurement() -> None:
    """Lost connections are an error, without a hang or a traceback."""
    async with relay("--rate", "0") as (server, url), trio.open_nursery() as nursery:
        nursery.start_soon(kill_while_relaying, server)
        status, result, stderr = await run(url, "--seconds", "2", "--pairs", "2")
    assert (status, result["sound"]) == (1, False)
    assert result["error"]["code"] == "bench_failed"
    assert "Traceback" not in stderr


async def kill_while_relaying(server: Program) -> None:
    await server.wait_for("relayed")
    await trio.sleep(0.2)
    server.process.kill()


@pytest.mark.e2e
async def test_relay_with_authentication_needs_a_token(tmp_path: Path) -> None:
    """The token must not bind an ID; without a token the error states the refusal."""
    async with relay("--rate", "0", "--auth-secret-file", str(secret_file(tmp_path)), "--auth-rate", "0") as (_, url):
        status, result, _ = await run(url, "--token", token(), "--seconds", "0.2", "--pairs", "2")
        assert (status, result["sound"]) == (0, True)
        status, result, stderr = await run(url, "--seconds", "0.2", "--pairs", "2")
    assert (status, result["sound"]) == (1, False)
    assert "unauthorized" in stderr


@pytest.mark.e2e
async def test_unreachable_relay_is_status_3() -> None:
    """The error is printed as a sentence and as an object."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        status, result, stderr = await run(f"ws://127.0.0.1:{taken.getsockname()[1]}")
    assert (status, result["error"]["code"]) == (3, "relay_unreachable")
    assert result["error"]["reason"] in stderr


@pytest.mark.e2e
async def test_other_http_server_is_status_3() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        status, result, _ = await run(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}", "--pairs", "1")
        nursery.cancel_scope.cancel()
    assert (status, result["error"]["code"]) == (3, "not_a_relay")


@pytest.mark.e2e
async def test_wss_relay_is_measured(tmp_path: Path) -> None:
    """The certificate is verified with `--cafile`, or not at all with `--insecure`; one that is not trusted is status 3."""
    async with relay("--rate", "0", *write_certificate(tmp_path)) as (_, url):
        assert url.startswith("wss://")
        for trust in (["--cafile", str(tmp_path / "ca.pem")], ["--insecure"]):
            status, result, _ = await run(url, *trust, "--seconds", "0.3", "--pairs", "3", "--payload", "40000")
            assert (status, result["sound"]) == (0, True), result
            assert result["messages"] > 0
        status, result, stderr = await run(url, "--seconds", "0.3")
    assert (status, result["error"]["code"]) == (3, "relay_unreachable")
    assert "--cafile" in stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ws://x", "--insecure"], "wss://"),
        (["--cafile", "x"], "wss://"),
        (["wss://x", "--cafile", "/none"], "cannot be read"),
        (["ftp://x"], "ws://"),
        (["--payload", "1"], "128"),
    ],
)
def test_bad_usage_is_status_2(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "sdpx", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout, words in done.stderr) == (2, "", True)


@pytest.mark.e2e
def test_interrupted_measurement_leaves_no_process() -> None:
    """On SIGTERM: status 1, a sentence, and neither relay nor load processes are left."""
    command = [sys.executable, "-m", "sdpx", "bench", "--seconds", "30"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as bench:
        assert bench.stderr
        assert "messages" in bench.stderr.readline() + bench.stderr.readline()
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
        pids = children.read_text().split() if children.exists() else []
        bench.terminate()
        stdout, stderr = bench.communicate(timeout=20)
    assert (bench.returncode, stdout) == (1, "")
    assert "interrupted (SIGTERM)" in stderr
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_bench_does_not_import_the_webrtc_stack() -> None:
    code = "import sys, sdpx.bench.main, sdpx.bench.load\n"
    code += "print([m for m in ('aiortc', 'aioice', 'trio_asyncio', 'asyncio', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
