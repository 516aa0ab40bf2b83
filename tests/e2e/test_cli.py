"""The programs in a shell: exit statuses, pipes, bad input, servers that are not relays."""

import json
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.harness.processes import environment, peer, relay, sdpx, two_peers

pytestmark = pytest.mark.e2e
SDPX = f"{shlex.quote(sys.executable)} -m sdpx"


def shell(command: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=seconds, env=environment(), check=False
    )


async def run(*arguments: str) -> tuple[int, str, list[str]]:
    """Run sdpx to its end; returns its exit status, stderr and the events of its log."""
    async with sdpx(*arguments) as program:
        status = await program.ended()
        return status, program.stderr.decode(), program.events


def test_help_and_version_load_no_program() -> None:
    """`sdpx --help` imports neither trio nor aiortc."""
    code = "import sys, sdpx.cli.app\ntry: sdpx.cli.app.command_line()(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('trio', 'aiortc', 'asyncio', 'msgspec', 'av') if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stderr.strip().endswith("[]")
    assert "serve" in done.stdout
    assert "peer" in done.stdout
    assert shell(f"{SDPX} --version").stdout.startswith("sdpx ")


def test_relay_does_not_load_the_webrtc_stack() -> None:
    """`sdpx serve` imports neither aiortc, trio_asyncio nor av; nor, without a cluster, coredis nor what `--help` needs."""
    code = "import sys, sdpx.cli.app\ntry: sdpx.cli.app.main(['serve', '--check'])\nexcept SystemExit: pass\n"
    code += "unwanted = 'aiortc', 'aioice', 'trio_asyncio', 'av', 'sdpx.peer.session', 'coredis', 'anyio', 'pydantic', 'rich'\n"
    code += "print([m for m in (*unwanted, 'sdpx.relay.cluster_relay') if m in sys.modules], 'sdpx.relay.app' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


@pytest.mark.parametrize("is_tested", [True, False])
def test_peer_does_not_load_the_libraries_of_audio_and_video(is_tested: bool) -> None:
    """aiortc is imported without PyAV, which stays importable for other code; another version of aiortc gets PyAV."""
    code = "import sys; from sdpx.peer import app; from sdpx.peer.webrtc import versions\n"
    code += "" if is_tested else "versions.TESTED['aiortc'] = (0,)\n"
    code += "app.load_webrtc(); print('aiortc' in sys.modules, 'av' in sys.modules)\n"
    code += "import av.frame; print(av.AudioFrame.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(not is_tested), "av.audio.frame"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["peer", "--url", "ftp://x"], "ws://"),
        (["serve", "--idle-timeout", "10"], "longer"),
        (["dance"], "dance"),
    ],
)
async def test_usage_error_is_status_2_with_the_remedy(arguments: list[str], words: str) -> None:
    """Nothing is started; tests/cli has all checks of the options."""
    status, stderr, events = await run(*arguments)
    assert (status, events) == (2, [])
    assert words in " ".join(stderr.split())


async def test_environment_variables_set_options() -> None:
    """As flags do."""
    code = f"SDPX_PORT=0 SDPX_LOG_FORMAT=text SDPX_ON_LOG_FAILURE=exit {SDPX} serve | head -1"
    done = await trio.to_thread.run_sync(shell, code)
    assert "server_listening" in done.stdout
    assert not done.stdout.startswith("{")


async def test_program_ends_with_a_sentence_when_the_reader_of_stdout_is_gone() -> None:
    """`sdpx serve --on-log-failure exit | head -1` and `sdpx peer | head -1`: the lost events are not lost in silence."""
    done = await trio.to_thread.run_sync(shell, f"{SDPX} serve --port 0 --on-log-failure exit | head -1")
    assert json.loads(done.stdout)["event"] == "server_listening"
    assert "Broken pipe" in done.stderr
    async with relay() as (_, url), peer(url) as (_, peer_id):
        silent_input = "< <(exec sleep 20 >/dev/null 2>&1)"
        pipe = f"{SDPX} peer --url {url} --no-stun --pair {peer_id} {silent_input} | head -1"
        done = await trio.to_thread.run_sync(shell, pipe)
    assert json.loads(done.stdout)["event"] == "connecting"
    assert "Broken pipe" in done.stderr


async def test_once_sends_all_piped_input_before_the_peer_exits() -> None:
    """`printf | sdpx peer --pair ID --once` loses nothing and exits with 0."""
    async with relay() as (_, url), peer(url) as (b, b_id):
        command = f"seq 1 500 | {SDPX} peer --url {url} --no-stun --pair {b_id} --once"
        done = await trio.to_thread.run_sync(shell, command)
        await b.wait_for("ready")
    assert done.returncode == 0
    assert [line["text"] for line in b.of("channel_message")] == [str(n) for n in range(1, 501)]


async def test_once_exits_when_the_channel_is_closed() -> None:
    """The other peer closes the channel: status 0."""
    async with relay() as (_, url), two_peers(url, bob=["--once"]) as (a, b):
        assert await a.end() == 0
        assert await b.ended() == 0


async def test_refused_connection_is_reported_as_unreachable() -> None:
    """No process listens on the port: status 3."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        status, stderr, _ = await run("peer", "--url", f"ws://127.0.0.1:{unused.getsockname()[1]}")
    assert status == 3
    assert "refused" in stderr


async def test_secrets_in_the_url_are_not_logged() -> None:
    """Password and token are neither in the events nor on stderr."""
    async with sdpx("peer", "--url", "ws://me:PASSWORD@127.0.0.1:1/?token=SECRET") as program:
        assert await program.ended() == 3
        told = str(program.lines) + program.stderr.decode()
    assert "127.0.0.1:1" in told
    assert "PASSWORD" not in told
    assert "SECRET" not in told


async def test_closed_standard_descriptor_is_replaced_by_dev_null() -> None:
    """A supervisor may start a program so; no socket gets the descriptor."""
    async with relay() as (_, url), peer(url) as (b, b_id):
        for closed in ("<&-", ">&- < /dev/null", "<&- 2>&-"):
            seen = len(b.lines)
            command = f"timeout 25 {SDPX} peer --url {url} --no-stun --pair {b_id} --once {closed}"
            done = await trio.to_thread.run_sync(shell, command)
            assert done.returncode == 0, closed
            assert "Traceback" not in done.stderr
            await b.wait_for("channel_open", after=seen)
            await b.wait_for("ready", after=seen)


async def test_id_in_use_is_refused_with_status_6() -> None:
    """The `error` event has the code of the relay, `id_taken`."""
    async with relay() as (_, url), peer(url, "--id", "robot"), sdpx("peer", "--url", url, "--id", "robot") as second:
        assert await second.ended() == 6
        assert (await second.wait_for("error"))["code"] == "id_taken"


async def test_sigterm_disconnects_all_clients_and_ends_the_relay() -> None:
    """Clients get close code 1001, a pair also `peer_disconnected`; the relay exits before the drain timeout, with 0."""
    async with relay("--drain-timeout", "600") as (server, url), two_peers(url) as (a, b):
        assert await server.end() == 0
        for program in (a, b):
            assert (await program.wait_for("peer_disconnected"))["reason"] == "shutdown"
            assert (await program.wait_for("disconnected"))["code"] == 1001


async def test_relay_listens_on_each_address_of_a_host() -> None:
    """One `server_listening` for each address of a host name, all with one port."""
    async with relay("--host", "::1") as (_, url):
        assert url.startswith("ws://[::1]:")
        async with open_websocket_url(url) as client:
            assert json.loads(await client.get_message())["type"] == "your_id"
    async with relay("--host", "localhost") as (server, url):
        found = {str(entry[4][0]) for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        while len([e for e in server.events if e == "server_listening"]) < len(found):
            await trio.sleep(0.01)
        listening = server.of("server_listening")
    assert {line["host"] for line in listening} == found
    assert len({line["port"] for line in listening}) == 1


async def test_relay_raises_its_file_limit() -> None:
    """The soft limit becomes the hard limit."""
    pid = """sed -E 's/.*"pid":([0-9]+).*/\\1/' <<< "$line\""""
    command = f"ulimit -Sn 128; {SDPX} serve --port 0 --on-log-failure exit | (read -r line; cat /proc/$({pid})/limits)"
    done = await trio.to_thread.run_sync(shell, command)
    [soft, hard] = next(line.split()[3:5] for line in done.stdout.splitlines() if line.startswith("Max open files"))
    assert soft == hard != "128"


async def test_metrics_port_moves_metrics_from_the_port_of_the_relay() -> None:
    """`metrics_listening` has the URL; /healthz is on both ports."""
    async with relay("--metrics-port", "0") as (server, url):
        own = (await server.wait_for("metrics_listening"))["url"]
        port = url.replace("ws://", "http://")
        fetched = [await trio.to_thread.run_sync(fetch, page) for page in (own, f"{port}/metrics", f"{port}/healthz")]
    assert [status for status, _ in fetched] == [200, 404, 200]
    assert b"sdpx_clients 0.0" in fetched[0][1]


def fetch(url: str) -> tuple[int, bytes]:
    """Return status and body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


async def test_port_in_use_is_an_error_with_the_address() -> None:
    """Status 1, `cannot_listen`."""
    async with relay() as (_, url):
        port = url.rpartition(":")[2]
        async with sdpx("serve", "--port", port) as second:
            assert await second.ended() == 1
            assert (await second.wait_for("error"))["code"] == "cannot_listen"
            assert port in second.stderr.decode()


async def test_stalled_reader_of_stdout_does_not_delay_the_end() -> None:
    """The relay serves clients, and SIGTERM ends it, while its stdout is not read."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "sdpx", "serve", "--port", "0"], stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    url = json.loads(await process.stdout.receive_some())["url"]
    for _ in range(3):
        async with open_websocket_url(url) as client:
            assert json.loads(await client.get_message())["type"] == "your_id"
    process.terminate()
    with trio.fail_after(30):
        assert await process.wait() == 0
