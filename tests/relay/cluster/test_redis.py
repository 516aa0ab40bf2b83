"""The engine's address, and what is wrong with an engine that cannot be used."""

import sys
from pathlib import Path

import pytest
import trio

from sdpx.errors import Ending
from sdpx.options import BadOption
from sdpx.relay import app
from sdpx.relay.cluster.options import ClusterOptions, validate_cluster_url
from sdpx.relay.cluster.redis import SCRIPTS, EngineAddress, RedisDirectory, script_text
from sdpx.relay.core.limits import Limits
from sdpx.relay.options import ServeOptions
from tests.harness.coturn import free_port
from tests.harness.redis_server import redis_server
from tests.relay.cluster.directories import open_cluster


def directory(url: str) -> RedisDirectory:
    return RedisDirectory(Limits(), 120.0, lambda: "n", EngineAddress.parse(url), "test:")


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h:6380/3", "redis://user:p%40ss@h:1/0", "redis://:secret@[::1]:6379"]
)
def test_urls_of_engines(url: str) -> None:
    assert validate_cluster_url(url) is None


@pytest.mark.parametrize("url", ["", "h:6379", "http://h", "redis://", "redis://h:0", "redis://h/x", "redis://h?db=1"])
def test_other_urls_are_refused(url: str) -> None:
    """Without quoting them."""
    assert validate_cluster_url(url) is not None


def test_user_and_password_of_a_url() -> None:
    """They are percent-decoded; a password from a file replaces that of the URL, and none is shown."""
    address = EngineAddress.parse("rediss://user:p%40ss@h:1/2")
    assert address[:6] == ("h", 1, 2, "user", "p@ss", True)
    assert EngineAddress.parse("redis://user:x@h", "other").password == "other"
    assert "p%40ss" not in address.shown


async def test_an_engine_that_cannot_be_reached_is_named() -> None:
    """With the system's reason, at `--check` and at the start."""
    url = f"redis://127.0.0.1:{free_port()}"
    with pytest.raises(Ending, match=f"{url}: Connection refused") as refused:
        await directory(url).check()
    assert refused.value.code == "engine_unavailable"


async def test_a_wrong_password_is_named_without_quoting_it(tmp_path: Path) -> None:
    """In the engine's words."""
    async with redis_server(tmp_path, "--requirepass", "right") as server:
        host = server.url.removeprefix("redis://")
        with pytest.raises(Ending) as refused:
            await directory(f"redis://:wrong@{host}").check()
        assert "invalid username-password pair" in refused.value.reason
        assert "wrong" not in refused.value.reason
        await directory(f"redis://:right@{host}").check()


async def test_an_engine_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """The check does not wait for ever."""
    async with redis_server(tmp_path) as server:
        server.suspend()
        with trio.fail_after(30), pytest.raises(Ending, match="no answer in time"):
            await directory(server.url).check()
        server.resume()


async def test_what_is_no_engine_is_named(nursery: trio.Nursery) -> None:
    """A server that closes the connection."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def close(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.aclose()

    nursery.start_soon(trio.serve_listeners, close, [listener])
    with pytest.raises(Ending, match="is this the port of a Redis or Valkey"):
        await directory(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}").check()


async def test_a_missing_password_is_named(tmp_path: Path) -> None:
    """With the option that gives it."""
    async with redis_server(tmp_path, "--requirepass", "right") as server:
        with pytest.raises(Ending, match="--cluster-password-file"):
            await directory(server.url).check()


async def test_connections_are_closed_with_the_directory(tmp_path: Path) -> None:
    """However often nodes come and go."""
    async with redis_server(tmp_path) as server:
        for _ in range(10):
            async with open_cluster(lambda *_: directory(server.url)) as cluster:
                await cluster.node()
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"INFO clients\r\n")
            answer = b""
            while b"connected_clients:" not in answer:
                answer += await stream.receive_some(4096)
            assert b"connected_clients:1\r" in answer


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.delitem(sys.modules, "sdpx.relay.cluster.redis")
    for name in [each for each in sys.modules if each.partition(".")[0] == "coredis"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadOption, match=r"--cluster: needs an extra: pip install 'sdpx\[cluster\]'"):
        app.load_directory(ServeOptions(cluster=ClusterOptions(cluster="redis://h")))


def test_a_password_file_is_read(tmp_path: Path) -> None:
    """An unusable one is a usage error."""
    file = tmp_path / "password"
    file.write_text("secret\n")
    options = ClusterOptions(cluster="redis://h", cluster_password_file=str(file))
    opened = app.load_directory(ServeOptions(cluster=options))
    assert isinstance(opened, RedisDirectory)
    assert opened._address.password == "secret"
    file.write_text("")
    with pytest.raises(BadOption, match=r"--cluster-password-file: .* is empty"):
        app.load_directory(ServeOptions(cluster=options))


def test_without_a_cluster_there_is_no_directory() -> None:
    assert app.load_directory(ServeOptions()) is None


def test_each_script_names_its_arguments() -> None:
    """All but those that make a node a member are fenced."""
    for name in SCRIPTS:
        text = script_text(name)
        assert ("return 'fenced' end\nif tonumber" in text) == (name not in ("join", "beat"))
        assert "ARGV" in text
