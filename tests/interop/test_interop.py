"""`sdpx peer` with browsers and other WebRTC stacks, in both roles, with a real relay between them."""

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.harness.processes import Program, peer, sdpx
from tests.harness.programs import skip_or_fail
from tests.harness.stun import stun_server
from tests.interop.control import ControlServer, Scenario
from tests.interop.scenario import ROLES, SECONDS, Role, Run, Servers, SignalingStyle, run_scenario
from tests.interop.stacks import missing, relay_process, running_stack

pytestmark = pytest.mark.e2e

NAMES: Final = ("chromium", "firefox", "werift", "node-datachannel", "wrtc", "gstreamer")


class Stacks:
    """A relay, and the running stacks; each is running_stack when it is first used."""

    def __init__(self, exits: ExitStack) -> None:
        self._exits = exits
        self._controls: dict[str, ControlServer] = {}
        self.servers = Servers(exits.enter_context(relay_process()), exits.enter_context(stun_server()))

    def control(self, name: str) -> ControlServer:
        """Return the control server of a stack."""
        if name not in self._controls or self._controls[name].failure:
            self._controls[name] = self._exits.enter_context(running_stack(name))
        return self._controls[name]

    async def run(self, name: str, role: Role, style: SignalingStyle) -> Run:
        """Connect `sdpx peer`, in this role, with a stack."""
        return await run_scenario(self.control(name), self.servers, role, style)


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    """Skip the tests of a stack that is not installed; with CI=true they fail."""
    callspec = getattr(request.node, "callspec", None)
    if callspec and (problem := missing(callspec.params["name"])):
        skip_or_fail(problem)


@pytest.fixture(scope="module")
def stacks() -> Iterator[Stacks]:
    with ExitStack() as exits:
        yield Stacks(exits)


def sent_candidates(run: Run) -> list[str]:
    """Return each candidate that the other side sent, in its description or after it."""
    texts = [str(report) for report in run.scenario.reports if report["event"] == "sent"]
    return [found for text in texts for found in re.findall(r"candidate:(\S+ \d+ \w+ .*? typ \w+)", text)]


@pytest.mark.parametrize("trickle", [True, False], ids=["trickling", "whole"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", NAMES)
async def test_sdpx_connects_with_a_stack(stacks: Stacks, name: str, role: Role, trickle: bool) -> None:
    """In each role of sdpx, with and without trickle ICE: connect, exchange text and binary messages, close."""
    assert sent_candidates(await stacks.run(name, role, SignalingStyle(trickle=trickle)))


@pytest.mark.parametrize("trickle", [True, False], ids=["trickling", "whole"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["chromium-mdns", "firefox-mdns"])
async def test_sdpx_connects_with_a_browser_that_hides_its_addresses(
    stacks: Stacks, name: str, role: Role, trickle: bool
) -> None:
    """All its candidates are .local names; even if these do not resolve, its own checks reach sdpx."""
    candidates = sent_candidates(await stacks.run(name, role, SignalingStyle(trickle=trickle)))
    assert candidates
    assert all(candidate.split()[4].endswith(".local") for candidate in candidates)


STYLES: Final = {
    "candidates_and_end_before_the_description": SignalingStyle(early=True),
    "empty_end_before_the_description": SignalingStyle(early=True, end="empty"),
    "an_empty_end": SignalingStyle(end="empty"),
    "no_end": SignalingStyle(end="none"),
    "only_sdpMid": SignalingStyle(name="sdpMid"),
    "only_sdpMLineIndex": SignalingStyle(name="sdpMLineIndex"),
    "no_prefix": SignalingStyle(no_prefix=True),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES.keys())
@pytest.mark.parametrize("name", ["chromium"])
async def test_signaling_styles_in_one_browser(stacks: Stacks, name: str, role: Role, style: SignalingStyle) -> None:
    """Each variation that clients in the field have, by itself."""
    await stacks.run(name, role, style)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "chromium"])
async def test_combined_signaling_styles_in_other_stacks(stacks: Stacks, name: str, role: Role) -> None:
    """The hardest variations together, in each other stack."""
    await stacks.run(name, role, SignalingStyle(early=True, name="sdpMid", no_prefix=True))


@pytest.mark.parametrize("trickle", [True, False], ids=["trickling", "whole"])
@pytest.mark.parametrize("name", ["chromium", "firefox", "gstreamer"])
async def test_an_offer_with_audio_and_video(stacks: Stacks, name: str, trickle: bool) -> None:
    """The data section is the last of three, bundled with two that sdpx answers `inactive`."""
    await stacks.run(name, "receiver", SignalingStyle(trickle=trickle, media=True))


# GStreamer's webrtcbin ends without DTLS or SCTP messages: for sdpx it vanishes.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "gstreamer"])
async def test_once_ends_when_the_other_side_closes_its_connection(stacks: Stacks, name: str) -> None:
    """The other side closes neither the channel nor its relay connection: the end of the RTCPeerConnection is enough."""
    await stacks.run(name, "receiver", SignalingStyle(ending="disconnect"))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_sdpx_connects_with_a_page_without_a_library(stacks: Stacks, name: str, role: Role) -> None:
    """The page pairs or is paired; its buttons work, and its log shows the connection."""
    control = stacks.control(name)
    if role == "initiator":
        page = control.start(page=True, relay=stacks.servers.relay)
        async with peer(stacks.servers.relay, "--once", "--pair", (await page.wait_for("id"))["id"]) as (program, _):
            await check_page(program, page)
    else:
        async with peer(stacks.servers.relay, "--once") as (program, peer_id):
            await check_page(program, control.start(page=True, relay=stacks.servers.relay, target=peer_id))


async def check_page(program: Program, page: Scenario) -> None:
    await program.wait_for("channel_open")
    await program.say("grüße ☃")
    await page.wait_for("line", text="peer: grüße ☃")
    await page.wait_for("line", text="connection connected")
    await program.wait_for("channel_message", text="hello from the page")
    await program.end_input()
    assert await program.ended() == 0
    await page.wait_for("line", text="peer gone: closed")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_a_page_and_sdpx_create_a_negotiated_channel(stacks: Stacks, name: str, role: Role) -> None:
    """And a second channel, opened by the page, on which a command sends by its label."""
    control, relay = stacks.control(name), stacks.servers.relay
    script = {"perfect": True, "relay": relay, "polite": True, "negotiated": 5}
    arguments = ("--stdin", "json", "--channel", "negotiated:5")
    if role == "initiator":
        page = control.start(**script)
        async with peer(relay, "--pair", (await page.wait_for("id"))["id"], *arguments) as (program, _):
            await use_both_channels(program, page)
    else:
        async with peer(relay, *arguments) as (program, peer_id):
            await use_both_channels(program, control.start(**script, target=peer_id))


async def use_both_channels(program: Program, page: Scenario) -> None:
    assert (await program.wait_for("channel_open"))["id"] == 5
    await program.say('{"send": "hello"}')
    await program.wait_for("channel_message", text="echo hello")
    await program.say('{"send": "second"}')
    await program.wait_for("channel_open", label="second")
    await program.say('{"send": "by label", "channel": "second"}')
    await program.wait_for("channel_message", text="second by label", channel="second")
    await program.say('{"send": "by default"}')
    await program.wait_for("channel_message", text="echo by default")
    await program.say('{"close": true}')
    assert await program.ended() == 0
    await page.wait_for("ended")


@pytest.mark.parametrize("keeps_id", [False, True], ids=["new_id", "same_id"])
@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_a_reloaded_page_pairs_again(stacks: Stacks, name: str, *, keeps_id: bool) -> None:
    """Its open channel outlives the socket to the relay, but not for long once another page, or the same one, asks."""
    async with peer(stacks.servers.relay, "--timeout", "60") as (program, peer_id):
        query = f"?id=page-{name}" if keeps_id else ""  # the page stays open, and keeps its ID, when the test has ended
        stacks.control(name).start(page=True, relay=stacks.servers.relay + query, target=peer_id)
        await program.wait_for("channel_open")
        seen = len(program.lines)
        await program.say("reload")
        await program.wait_for("channel_open", after=seen)
        await program.say("again")
        await program.wait_for("channel_message", after=seen, text="hello from the page")


@pytest.mark.parametrize("eager", [False, True], ids=["plain", "crossing"])
@pytest.mark.parametrize("polite", [True, False], ids=["polite", "impolite"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_a_page_with_perfect_negotiation_offers_again(
    stacks: Stacks, name: str, role: Role, polite: bool, eager: bool
) -> None:
    """A transceiver, an ICE restart and a second channel change the present connection; offers that cross are resolved."""
    control, relay = stacks.control(name), stacks.servers.relay
    script = {"perfect": True, "relay": relay, "polite": polite, "eager": eager}
    with trio.fail_after(SECONDS):
        if role == "initiator":
            page = control.start(**script)
            async with peer(relay, "--pair", (await page.wait_for("id"))["id"]) as (program, _):
                await renegotiate(program, page)
                rolled_back = eager and not polite
                assert program.events.count("pc_created") == 1 + rolled_back
        else:
            async with peer(relay) as (program, peer_id):
                await renegotiate(program, control.start(**script, target=peer_id))
                assert program.events.count("pc_created") == 1


async def renegotiate(program: Program, page: Scenario) -> None:
    """Let the page offer again, and exchange messages on the first channel after each change."""
    try:
        await page.wait_for("open", label=(await program.wait_for("channel_open"))["label"])
        for command, sections in (("track", 2), ("restart", 2)):
            before = len(page.reports)
            await program.say(command)
            while not any(each["event"] == "negotiated" for each in page.reports[before:]):
                await page.change()
            assert [each["sections"] for each in page.reports[before:] if each["event"] == "negotiated"] == [sections]
            await program.say(f"after {command}")
            await program.wait_for("channel_message", text=f"echo after {command}")
        await program.say("second")
        await page.wait_for("open", label="second")
        await program.say("last")
        await program.wait_for("channel_message", text="echo last")
        assert not program.of("channel_closed")
        await program.end()
        await page.wait_for("ended")
    except BaseException as error:
        error.add_note(f"{page.reports}\n{program.lines}")
        raise


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        *((name, percent) for name in ("chromium", "werift") for percent in ("1", "2", "5")),
        *(("node-datachannel", percent) for percent in ("1", "2", "5")),
    ],
)
async def test_all_bytes_arrive_over_a_bad_path(stacks: Stacks, name: str, percent: str) -> None:
    """So many percent of the datagrams are lost in each direction, come twice, and come late; all echoes are as they were."""
    source = random.Random(percent)
    texts = [source.randbytes(source.choice([1, 500, 5_000, 30_000])).hex() for _ in range(8)]
    arguments = ("peer", "--url", stacks.servers.relay, "--no-stun", "--once")
    async with sdpx(*arguments, module=("tests.interop.lossy_peer", percent, percent)) as program:
        script = {"relay": stacks.servers.relay, "target": (await program.wait_for("id_assigned"))["id"]}
        scenario = stacks.control(name).start(**(script | vars(SignalingStyle(trickle=False))))
        await scenario.wait_for("open")
        await program.say("greet")
        for text in texts:
            await program.say(text)
        await program.wait_for("channel_message", text=f"echo {texts[-1]}")
        echoes = [line["text"] for line in program.of("channel_message") if "text" in line]
        assert echoes == ["hello from the other stack", *(f"echo {text}" for text in texts)]
        await program.say("close")
        assert await program.ended() == 0
        await scenario.wait_for("ended")


def test_the_documentation_lists_the_tested_stacks() -> None:
    document = Path(__file__).parent.parent.parent / "sdpx" / "docs" / "interop.md"
    assert tuple(re.findall(r"^\| `([\w-]+)` ", document.read_text(), re.MULTILINE)) == NAMES
