"""One connection of `sdpx peer` with another stack, from the first event to the last, and the checks of it."""

import base64
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import trio

from tests.harness.processes import Program, sdpx
from tests.interop.control import ControlServer, Scenario

SECONDS: Final = 35.0
ROLES: Final[tuple["Role", ...]] = ("initiator", "receiver")
BINARY: Final = base64.b64encode(bytes([0, 1, 2, 255])).decode()
TEXT: Final = "grüße ☃"
LONG: Final = "x" * 60_000  # more than one packet, less than the 64 KiB that every stack accepts

Role = Literal["initiator", "receiver"]

# The events that `sdpx peer` guarantees in this order; others may come between them.
STEPS: Final[dict["Role", list[str]]] = {
    "initiator": [
        *("connecting", "connected", "id_assigned", "pair_requested", "paired", "pc_created", "webrtc_started"),
        *("offer_created", "offer_sent", "answer_received", "exchange_complete", "channel_open"),
        *("channel_message_sent", "channel_message_sent", "channel_closed", "closing", "closed"),
    ],
    "receiver": [
        *("connecting", "connected", "id_assigned", "paired", "pc_created", "webrtc_started", "offer_received"),
        *("remote_description_set", "answer_created", "answer_sent", "exchange_complete", "channel_open"),
        *("channel_message_sent", "channel_message_sent", "channel_closed", "closing", "closed"),
    ],
}


@dataclass(frozen=True)
class SignalingStyle:
    """How the client of the other stack signals (see client.mjs).

    `ending` is how it ends: it closes the channel, or the connection. With None, sdpx as initiator ends at the end of its
    input, and for sdpx as receiver the client closes the channel.
    """

    trickle: bool = True
    early: bool = False
    name: Literal["both", "sdpMid", "sdpMLineIndex"] = "both"
    end: Literal["null", "empty", "none"] = "null"
    no_prefix: bool = False
    media: bool = False
    ending: Literal["close", "disconnect"] | None = None


@dataclass
class Run:
    """The process of `sdpx peer`, and the scenario of the other side with its reports."""

    program: Program
    scenario: Scenario
    style: SignalingStyle
    status: int = field(default=-1)


@dataclass(frozen=True)
class Servers:
    """The URLs of the relay, and of a STUN server: without one sdpx has no candidates to trickle."""

    relay: str
    stun: str


async def run_scenario(control: ControlServer, servers: Servers, role: Role, style: SignalingStyle) -> Run:
    """Connect `sdpx peer`, in this role, with the client of a control server. Both sides trickle, or neither."""
    script: dict[str, Any] = {"relay": servers.relay, "target": None} | vars(style)
    arguments = ["--url", servers.relay, "--once", *(("--stun", servers.stun) if style.trickle else ("--no-stun",))]
    if role == "initiator":
        scenario = control.start(**script)
        with trio.fail_after(SECONDS):
            target = (await scenario.wait_for("id"))["id"]
        async with sdpx("peer", *arguments, "--pair", target) as program:
            return await _check(Run(program, scenario, style), role)
    async with sdpx("peer", *arguments) as program:
        scenario = control.start(**(script | {"target": (await program.wait_for("id_assigned"))["id"]}))
        return await _check(Run(program, scenario, style), role)


async def _check(run: Run, role: Role) -> Run:
    try:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.scenario.wait_for, "never")  # raises for a `failed` report
                await _exchange_messages(run)
                await _end(run, role)
                nursery.cancel_scope.cancel()
        _check_lines(run, role)
    except BaseException as error:
        error.add_note(_logs(run))
        raise
    return run


async def _exchange_messages(run: Run) -> None:
    """Both sides open a channel, and send text and binary messages, short and longer than a packet."""
    program, scenario, style = run.program, run.scenario, run.style
    await program.wait_for("connection_state", state="connected")
    await program.wait_for("channel_open")
    await scenario.wait_for("open")
    await program.say("greet")
    await program.wait_for("channel_message", text="hello from the other stack")
    await program.wait_for("channel_message", base64=BINARY, bytes=4)
    for text in (TEXT, LONG):
        await program.say(text)
        await program.wait_for("channel_message_sent", bytes=len(text.encode()))
        await program.wait_for("channel_message", text=f"echo {text}")
    if style.trickle:
        await program.wait_for("candidate_sent", candidate_type="srflx")
        await program.wait_for("candidate_sent", end_of_candidates=True)
        await scenario.wait_for("candidate", end=True)
    if style.trickle and style.end != "none":
        await program.wait_for("candidate_received", end_of_candidates=True)


async def _end(run: Run, role: Role) -> None:
    """With `--once` the end of the connection ends the process, whichever side causes it.

    A stack that disconnects on a message may do so before it acknowledges it: then it is in doubt, and that is a status.
    """
    ending = run.style.ending or ("close" if role == "receiver" else None)
    if ending:
        await run.program.say(ending)
    else:
        await run.program.end_input()
    run.status = await run.program.ended()
    in_doubt = run.style.ending == "disconnect" and "messages_unconfirmed" in run.program.events
    assert run.status == (12 if in_doubt else 0), run.status
    await run.scenario.wait_for("ended")


def _check_lines(run: Run, role: Role) -> None:
    """The log has the guaranteed events, and the other side has seen one data channel."""
    opened = [report["label"] for report in run.scenario.reports if report["event"] == "open"]
    assert opened == ["chat" if role == "initiator" else "robot"]
    lines = run.program.lines
    events = iter(line["event"] for line in lines)
    for step in STEPS[role]:
        assert step in events, f"{step} is not in its place"
    assert all(isinstance(line["ms"], float) and list(line)[-1] == "ms" for line in lines)
    expected = {"messages_unconfirmed", "diagnosis", "error"} if run.status else set()
    assert {line["event"] for line in lines if line["level"] in ("warning", "error")} == expected
    assert [line["state"] for line in lines if line["event"] == "connection_state"].count("failed") == 0
    ends = [line["end_of_candidates"] for line in lines if line["event"] == "candidate_received"]
    if not run.style.trickle:
        assert ends == []
        assert "candidate_sent" not in run.program.events
    else:
        assert ends.count(False) > 0
        assert ends.count(True) == (run.style.end != "none")


def _logs(run: Run) -> str:
    sdpx_log = "\n".join(
        " ".join(f"{key}={value!r}"[:300] for key, value in line.items() if key != "ts") for line in run.program.lines
    )
    reports = "\n".join(str(report)[:2000] for report in run.scenario.reports)
    return f"--- sdpx peer\n{sdpx_log}\n{run.program.stderr.decode()}\n--- the other side\n{reports}"
