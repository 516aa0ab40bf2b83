"""The choice by the other side's `agent`: a link, plain messages, or an end with the reason."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from sdpx.errors import Ending
from sdpx.peer.transfer.plain import PlainChannel
from sdpx.peer.transfer.transport import Transport, modes_of
from tests.harness.links import new_link


def attach(transport: Transport, agent: str) -> list[Callable[..., Any]]:
    """Attach a connection; returns the functions that were started."""
    started: list[Callable[..., Any]] = []
    channels = SimpleNamespace(set_flows=lambda _flows: None, binary=lambda label: label)
    pc: Any = SimpleNamespace(channels=channels, selected_pair=None)
    transport.attach(pc, agent, "bob", lambda function, *_: started.append(function), is_initiator=True)
    return started


@pytest.mark.parametrize(
    ("agent", "modes"),
    [
        ("sdpx/0.1.0", []),
        ("", []),
        ("browser (pipe)", []),
        ("sdpx/0.1.0 (pipe)", ["pipe"]),
        ("sdpx/0.1.0 (both, files-out)", ["both", "files-out"]),
    ],
)
def test_modes_are_in_the_agent(agent: str, modes: list[str]) -> None:
    assert modes_of(agent) == modes


def test_two_pipes_use_a_link() -> None:
    transport = Transport("pipe", new_link(), PlainChannel())
    assert attach(transport, "sdpx/9.9 (pipe)") == [transport.link.serve]


@pytest.mark.parametrize("agent", ["", "a page", "sdpx/0.1.0", "sdpx/0.1.0 (both, files)"])
def test_pipe_sends_plain_messages_to_a_program_that_is_no_pipe(agent: str) -> None:
    plain = PlainChannel()
    transport = Transport("pipe", new_link(), plain)
    assert attach(transport, agent) == [plain.serve]
    assert transport.is_plain


@pytest.mark.parametrize(
    ("mode", "accepts", "agent"),
    [
        ("pipe", (), "sdpx/0.1.0 (files)"),
        ("files", ("files",), "sdpx/0.1.0 (pipe)"),
        ("files", ("files",), "sdpx/0.1.0 (both, files-out)"),
        ("files", ("files", "files-out"), "sdpx/0.1.0"),
        ("files", ("files",), ""),
    ],
)
async def test_program_that_does_not_take_part_is_named(
    mode: Any, accepts: tuple[str, ...], agent: str, autojump_clock: trio.abc.Clock
) -> None:
    transport = Transport(mode, new_link(), PlainChannel() if mode == "pipe" else None, accepts=accepts)
    (refuse,) = attach(transport, agent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse, transport.link.fail, Ending("no_transfer", f"not with '{agent}'"))
        with pytest.raises(Ending) as ended:
            await transport.link.receive()
    assert ended.value.code == "no_transfer"
