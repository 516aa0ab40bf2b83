"""One meeting of `sdpx peer` with another stack: the whole story, and what has to be true of it."""

import base64
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import trio

from tests.harness.processes import Program, sdpx
from tests.interop.stage import Scene, Stage

SECONDS: Final = 35.0
ROLES: Final[tuple["Role", ...]] = ("initiator", "receiver")
BINARY: Final = base64.b64encode(bytes([0, 1, 2, 255])).decode()
WORDS: Final = "grüße ☃"
LONG: Final = "x" * 60_000  # more than one packet, less than the 64 KiB that every stack takes

Role = Literal["initiator", "receiver"]

# The steps that `sdpx peer` promises, in this order, whatever comes between them.
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
class Manners:
    """How the other side signals; client.mjs says what each means.

    `parting` is what it is told to do at the end: to close the channel, or to leave by closing its connection. If it is
    None, the initiator leaves by itself at the end of its input, and to the receiver the channel is closed.
    """

    trickle: bool = True
    early: bool = False
    name: Literal["both", "sdpMid", "sdpMLineIndex"] = "both"
    end: Literal["null", "empty", "none"] = "null"
    bare: bool = False
    media: bool = False
    parting: Literal["close", "leave"] | None = None


@dataclass
class Meeting:
    """What came of a meeting: the process of `sdpx peer`, and what the other side reported."""

    program: Program
    scene: Scene
    manners: Manners
    status: int = field(default=-1)


@dataclass(frozen=True)
class Servers:
    """URLs of the relay, and of a STUN server for an sdpx that is to trickle as well."""

    relay: str
    stun: str


async def meet(stage: Stage, servers: Servers, role: Role, manners: Manners) -> Meeting:
    """Let `sdpx peer` meet the client of a stage; `role` is that of sdpx. Either both trickle or none. All is checked."""
    script: dict[str, Any] = {"relay": servers.relay, "target": None} | vars(manners)
    arguments = ["--url", servers.relay, "--once", *(("--stun", servers.stun) if manners.trickle else ("--no-stun",))]
    if role == "initiator":
        scene = stage.play(**script)
        with trio.fail_after(SECONDS):
            target = (await scene.heard("id"))["id"]
        async with sdpx("peer", *arguments, "--pair", target) as program:
            return await _checked(Meeting(program, scene, manners), role)
    async with sdpx("peer", *arguments) as program:
        scene = stage.play(**(script | {"target": (await program.wait_for("id_assigned"))["id"]}))
        return await _checked(Meeting(program, scene, manners), role)


async def _checked(meeting: Meeting, role: Role) -> Meeting:
    try:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(meeting.scene.heard, "a failure")  # which it raises
                await _talk(meeting)
                await _part(meeting, role)
                nursery.cancel_scope.cancel()
        _check_lines(meeting, role)
    except BaseException as error:
        error.add_note(_evidence(meeting))
        raise
    return meeting


async def _talk(meeting: Meeting) -> None:
    """A channel at both ends, text and binary, a word and more than a packet."""
    program, scene, manners = meeting.program, meeting.scene, meeting.manners
    await program.wait_for("connection_state", state="connected")
    await program.wait_for("channel_open")
    await scene.heard("open")
    await program.say("hail")
    await program.wait_for("channel_message", text="hello from the other stack")
    await program.wait_for("channel_message", base64=BINARY, bytes=4)
    for words in (WORDS, LONG):
        await program.say(words)
        await program.wait_for("channel_message_sent", bytes=len(words.encode()))
        await program.wait_for("channel_message", text=f"echo {words}")
    if manners.trickle:
        await program.wait_for("candidate_sent", candidate_type="srflx")
        await program.wait_for("candidate_sent", end_of_candidates=True)
        await scene.heard("candidate", candidate=None)
    if manners.trickle and manners.end != "none":
        await program.wait_for("candidate_received", end_of_candidates=True)


async def _part(meeting: Meeting, role: Role) -> None:
    """Whoever ends it, `--once` makes it the end of the process, and a good one."""
    parting = meeting.manners.parting or ("close" if role == "receiver" else None)
    if parting:
        await meeting.program.say(parting)
    else:
        await meeting.program.end_input()
    meeting.status = await meeting.program.ended()
    assert meeting.status == 0, meeting.status
    await meeting.scene.heard("over")


def _check_lines(meeting: Meeting, role: Role) -> None:
    """The log keeps its promises, and the other side has seen one data channel only."""
    opened = [report["label"] for report in meeting.scene.reports if report["event"] == "open"]
    assert opened == ["chat" if role == "initiator" else "robot"]
    lines = meeting.program.lines
    events = iter(line["event"] for line in lines)
    for step in STEPS[role]:
        assert step in events, f"{step} is not where it belongs"
    assert all(isinstance(line["ms"], float) and list(line)[-1] == "ms" for line in lines)
    assert not [line for line in lines if line["level"] in ("warning", "error")]
    assert [line["state"] for line in lines if line["event"] == "connection_state"].count("failed") == 0
    ends = [line["end_of_candidates"] for line in lines if line["event"] == "candidate_received"]
    if not meeting.manners.trickle:
        assert ends == []
        assert "candidate_sent" not in meeting.program.events
    else:
        assert ends.count(False) > 0
        assert ends.count(True) == (meeting.manners.end != "none")


def _evidence(meeting: Meeting) -> str:
    told = "\n".join(
        " ".join(f"{key}={value!r}"[:300] for key, value in line.items() if key != "ts")
        for line in meeting.program.lines
    )
    heard = "\n".join(str(report)[:2000] for report in meeting.scene.reports)
    return f"--- sdpx peer\n{told}\n{meeting.program.stderr.decode()}\n--- the other side\n{heard}"
