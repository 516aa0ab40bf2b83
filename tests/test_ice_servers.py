"""STUN and TURN servers: URLs, RTCIceServer dictionaries, and the order of precedence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.ice_servers import (
    DEFAULT_STUN,
    MAX_SERVERS,
    IceServer,
    choose,
    parse_server,
    parse_stun,
    parse_turn,
    servers_from,
)

TURN = IceServer("turn", "t.example", 3478, "udp", "u", "p")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("stun:h", IceServer("stun", "h", 3478)),
        ("stun:h:1", IceServer("stun", "h", 1)),
        ("stuns:h:5349", IceServer("stuns", "h", 5349)),
        ("stun:192.0.2.1:65535", IceServer("stun", "192.0.2.1", 65535)),
        ("stun:[::1]", IceServer("stun", "::1", 3478)),
        ("stun:[2001:db8::1]:99", IceServer("stun", "2001:db8::1", 99)),
        ("turn:u:p@h", IceServer("turn", "h", 3478, "udp", "u", "p")),
        ("turn:u:p@h:9?transport=tcp", IceServer("turn", "h", 9, "tcp", "u", "p")),
        ("turn:u:p@h?transport=udp", IceServer("turn", "h", 3478, "udp", "u", "p")),
        ("turns:u:p@h", IceServer("turns", "h", 5349, "tcp", "u", "p")),
        ("turn:a%40b%3Ac:p%2F%25@[::1]:9", IceServer("turn", "::1", 9, "udp", "a@b:c", "p/%")),
        ("turn:1700000000:bob:x==@h", IceServer("turn", "h", 3478, "udp", "1700000000", "bob:x==")),
        ("turn:u@v:p@h", IceServer("turn", "h", 3478, "udp", "u@v", "p")),
        ("turn:h", IceServer("turn", "h", 3478)),
        ("STUN:h", IceServer("stun", "h", 3478)),
        ("stun:h:9?transport=udp", IceServer("stun", "h", 9)),
        ("stuns:h?transport=TCP", IceServer("stuns", "h", 5349)),
        ("stun://h:9/", IceServer("stun", "h", 9)),
        ("turn://u:p@h", IceServer("turn", "h", 3478, "udp", "u", "p")),
        ("TURN:u:P@h?transport=TCP", IceServer("turn", "h", 3478, "tcp", "u", "P")),
        (" turn:h\n", IceServer("turn", "h", 3478)),
    ],
)
def test_valid_url_is_parsed(url: str, server: IceServer) -> None:
    """RFC 7064 and 7065; the last @ ends the password, the first colon ends the user."""
    assert parse_server(url) == server


@pytest.mark.parametrize(
    ("url", "word"),
    [
        *[(url, "not the URL") for url in ("", "h", "h:3478", "http://h", "stun2:h")],
        *[
            (url, "host")
            for url in (
                "stun:a..b",
                f"stun:{'a' * 64}.test",
                f"stun:{'a.' * 126}ab",
                "stun:.a",
                "stun",
                "stun:",
                "stun:///h",
                "stun::3478",
                "stun:h h",
                "turn:u:p@",
                "stun:[::1",
                "stun:::1",
            )
        ],
        *[(f"stun:h:{port}", "port") for port in ("", "0", "65536", "-1", "abc", "\u0663", "1.5", "9" * 5000)],
        *[(url, "does not allow") for url in ("stun:u:p@h", "stun:h?transport=tcp", "stun:h?", "stun:h?x=udp")],
        *[(url, "transport") for url in ("turn:u:p@h?transport=sctp", "turn:u:p@h?x=udp", "turn:u:p@h?")],
        ("turns:u:p@h?transport=udp", "DTLS"),
        *[(url, "user and password") for url in ("turn:u@h", "turn:@h", "turn::p@h")],
    ],
)
def test_invalid_url_is_refused_with_its_error(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse_server(url)


def test_stun_and_turn_options_accept_their_own_scheme() -> None:
    """`--stun` refuses turn:, `--turn` refuses stun: and requires credentials."""
    assert parse_stun("stun:h").scheme == "stun"
    assert parse_turn("turn:u:p@h").username == "u"
    for url in ("turn:u:p@h", "h"):
        with pytest.raises(ValueError, match="not the URL of a STUN server"):
            parse_stun(url)
    for url, word in (("stun:h", "not the URL of a TURN server"), ("turn:h", "no user and password")):
        with pytest.raises(ValueError, match=word):
            parse_turn(url)


@given(st.text() | st.text("turns:@?[]%0123456789é=").map("turn:".__add__))
def test_any_text_is_parsed_or_refused_with_a_sentence(text: str) -> None:
    """The URL of a parsed server parses to the same server without credentials."""
    try:
        server = parse_server(text)
    except ValueError as error:
        sentence = str(error)
    else:
        sentence = "'"
        again = parse_server(server.url)
        assert (again.scheme, again.host, again.port, again.transport) == (
            server.scheme,
            server.host,
            server.port,
            server.transport,
        )
    assert sentence.startswith("'")


def test_password_is_in_neither_url_nor_error() -> None:
    assert "hush" not in TURN.url + parse_server("turn:u:hush@h").url
    with pytest.raises(ValueError, match=r"\.\.\.@h") as wrong:
        parse_server("turn:u:hush@h:0")
    assert "hush" not in str(wrong.value)


def test_dictionaries_are_parsed() -> None:
    """RTCIceServer: `urls` is a string or a list, and the credentials apply to all of its URLs."""
    assert servers_from(
        [
            {"urls": "stun:a"},
            {"urls": ["turn:t.example", "turns:t.example"], "username": "u", "credential": "p"},
            {"url": "stun:old"},
        ]
    ) == (
        IceServer("stun", "a", 3478),
        TURN,
        IceServer("turns", "t.example", 5349, "tcp", "u", "p"),
        IceServer("stun", "old", 3478),
    )


@pytest.mark.parametrize("value", [None, 1, "stun:h", {}, {"urls": "stun:h"}, [1, None, "stun:h", [], {}]])
def test_invalid_dictionaries_are_ignored(value: object) -> None:
    assert servers_from(value) == ()


@pytest.mark.parametrize("broken", [{"urls": "http://h"}, {"urls": [1, None, "x"]}, {"urls": {}}, {"urls": None}])
def test_invalid_dictionary_does_not_affect_others(broken: object) -> None:
    assert servers_from([broken, {"urls": "stun:a", "username": 1}]) == (IceServer("stun", "a", 3478),)


def test_number_of_servers_is_bounded() -> None:
    assert len(servers_from([{"urls": f"stun:h{number}"} for number in range(999)])) == MAX_SERVERS


def test_dictionary_of_a_server_parses_to_the_same_server() -> None:
    """The path from `sdpx serve --ice-server` to `sdpx peer`."""
    assert servers_from([TURN.dictionary(), DEFAULT_STUN.dictionary()]) == (TURN, DEFAULT_STUN)


def test_command_line_takes_precedence_over_relay_and_default() -> None:
    offered = [{"urls": "stun:relay"}, TURN.dictionary()]
    named = (IceServer("stun", "mine", 1),)
    assert choose(named, offered, no_stun=False) == named
    assert choose(None, offered, no_stun=False) == (IceServer("stun", "relay", 3478), TURN)
    assert choose(None, None, no_stun=False) == (DEFAULT_STUN,)


@pytest.mark.parametrize("offered", [[], [{"urls": "http://h"}], [{}], {}, "stun:h", 7, False])
def test_default_server_does_not_replace_a_list_of_the_relay(offered: object) -> None:
    """Even if none of its servers can be used, servers of third parties are not asked."""
    assert choose(None, offered, no_stun=False) == ()


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        ([{"urls": ["stun:a", "http://h"]}, 1], ["'http://h'", "not an object"]),
        ([{"urls": ["turns:h?transport=udp", None]}], ["DTLS", "not the URL"]),
        ("stun:h", ["not a list"]),
        ([{"urls": "stun:a?transport=udp"}], []),
        ([{"urls": "turn:a", "username": "u" * 509, "credential": "p"}], ["more than 508 bytes"]),
        ([0] * 100_000, ["not an object"]),
        ([{"urls": [f"http://h{number}" for number in range(1000)]}], ["not the URL"] * MAX_SERVERS + ["992 more"]),
    ],
)
def test_ignored_entries_are_named(offered: object, words: list[str]) -> None:
    reasons: list[str] = []
    servers_from(offered, reasons.append)
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_no_stun_removes_every_stun_server() -> None:
    """TURN servers stay."""
    assert choose(None, None, no_stun=True) == ()
    assert choose(None, [{"urls": "stun:relay"}, TURN.dictionary()], no_stun=True) == (TURN,)
    assert choose((TURN,), [], no_stun=True) == (TURN,)
