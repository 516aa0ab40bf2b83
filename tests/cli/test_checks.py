"""Checks of options beyond type and range: the first problem names the option and the remedy."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sdpx.bench.options import BenchOptions
from sdpx.cli import checks
from sdpx.cli.options import TokenOptions
from sdpx.options import AccessOptions
from sdpx.peer.options import PeerOptions
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.core.limits import Limits
from sdpx.relay.options import ServeOptions

CHECKS: dict[type, Callable[[Any], Iterator[checks.Problem]]] = {
    ServeOptions: checks.serve,
    PeerOptions: checks.peer,
    TokenOptions: checks.token,
    BenchOptions: checks.bench,
}


def first_problem(options: Any) -> tuple[str, str] | None:
    return next(((option, problem) for option, problem in CHECKS[type(options)](options) if problem), None)


@pytest.mark.parametrize(
    ("options", "option", "words"),
    [
        (ServeOptions(limits=Limits(idle_timeout=10)), "--idle-timeout", "longer than --ping-interval"),
        (ServeOptions(metrics_host="::1"), "--metrics-host", "needs --metrics-port"),
        (ServeOptions(ice_server=("http://h",)), "--ice-server", "stun:"),
        (ServeOptions(auth=AuthOptions(auth_webhook="ftp://u:hush@h")), "--auth-webhook", "not an HTTP URL"),
        (ServeOptions(auth=AuthOptions(allow_origin=("example.com",))), "--allow-origin", "'example.com'"),
        (ServeOptions(auth=AuthOptions(trusted_proxy=("10.0.0.0/40",))), "--trusted-proxy", "'10.0.0.0/40'"),
        (ServeOptions(auth=AuthOptions(tls_cert="c")), "--tls-cert", "needs --tls-key"),
        (ServeOptions(auth=AuthOptions(tls_key="k")), "--tls-key", "needs --tls-cert"),
        (ServeOptions(auth=AuthOptions(turn_secret_file="s")), "--turn-secret-file", "needs --turn-url"),
        (ServeOptions(auth=AuthOptions(turn_url=("turn:h",))), "--turn-url", "needs --turn-secret-file"),
        (ServeOptions(auth=AuthOptions(turn_url=("stun:h",), turn_secret_file="s")), "--turn-url", "'stun:h'"),
        (ServeOptions(auth=AuthOptions(auth_audience="x")), "--auth-audience", "needs --auth-secret-file"),
        (ServeOptions(auth=AuthOptions(id_claim="email")), "--id-claim", "needs --auth-secret-file"),
        (PeerOptions(url="ftp://x"), "--url", "ws://"),
        (PeerOptions(target="alice", pair="bob"), "ID", "contradicts --pair"),
        (PeerOptions(pair=""), "--pair", "not a client ID"),
        (PeerOptions(client_id="a b"), "--id", "'a b' is not a client ID"),
        (PeerOptions(access=AccessOptions(token=" ")), "--token", "empty"),
        (PeerOptions(access=AccessOptions(token="a\r\nX: b")), "--token", "HTTP header"),
        (BenchOptions(access=AccessOptions(token="é")), "--token", "HTTP header"),
        (
            PeerOptions(url="wss://h", access=AccessOptions(cafile="f", insecure=True)),
            "--insecure",
            "contradicts --cafile",
        ),
        (PeerOptions(access=AccessOptions(cafile="f")), "--cafile", "wss://"),
        (PeerOptions(access=AccessOptions(insecure=True)), "--insecure", "wss://"),
        (PeerOptions(wait=5), "--wait", "needs --pair"),
        (PeerOptions(within=5), "--within", "needs --expect"),
        (PeerOptions(stun=("stun:x",), no_stun=True), "--no-stun", "contradicts --stun"),
        (PeerOptions(stun=("turn:x",)), "--stun", "stun:HOST"),
        (PeerOptions(turn=("turn:x",)), "--turn", "USER:PASS"),
        (TokenOptions("x" * 65, "s"), "--sub", "is not a client ID"),
        (TokenOptions("bob"), "--auth-secret-file", "required"),
        (TokenOptions("bob", "s", ttl="soon"), "--ttl", "'soon'"),
        (TokenOptions("bob", "s", pair=("x" * 65,)), "--pair", "is not an ID or a pattern"),
        (BenchOptions("http://h"), "URL", "ws://"),
        (BenchOptions(access=AccessOptions(token="")), "--token", "empty"),
        (BenchOptions(with_peer="bob"), "--with", "needs --data"),
        (BenchOptions(client_id="bob"), "--id", "needs --data"),
        (BenchOptions(data=True, with_peer="a b"), "--with", "not a client ID"),
        (BenchOptions(data=True, with_peer="bob", turn=("turn:x",)), "--turn", "USER:PASS"),
        (BenchOptions("ws://h", access=AccessOptions(insecure=True)), "--insecure", "wss://"),
    ],
)
def test_problem_names_the_option_and_the_remedy(options: Any, option: str, words: str) -> None:
    found = first_problem(options)
    assert found is not None
    assert found[0] == option
    assert words in found[1]
    assert "hush" not in found[1]


@pytest.mark.parametrize(
    "options",
    [
        ServeOptions(),
        ServeOptions(metrics_port=0, metrics_host="::1", ice_server=("stun:h", "turn:u:p@h")),
        ServeOptions(auth=AuthOptions(tls_cert="c", tls_key="k", turn_secret_file="s", turn_url=("turn:h",))),
        ServeOptions(auth=AuthOptions(auth_jwks="j", auth_audience="x", allow_origin=("https://a.test",))),
        PeerOptions(),
        PeerOptions(
            url="WSS://h",
            access=AccessOptions(cafile="f"),
            pair="bob",
            wait=5,
            expect="message",
            within=5,
            turn=("turn:u:p@h",),
        ),
        PeerOptions(no_stun=True, client_id="me", access=AccessOptions(token="t")),
        TokenOptions("bob", "s", ttl="7d", pair=("robot-*",)),
        BenchOptions(),
        BenchOptions("ws://h", access=AccessOptions(token="t")),
    ],
)
def test_valid_options_have_no_problem(options: Any) -> None:
    assert first_problem(options) is None
