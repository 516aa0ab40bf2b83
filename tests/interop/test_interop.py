"""`sdpx peer` meets the real thing: browsers and other WebRTC stacks, in both roles, with a real relay between them."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.harness.processes import Program, peer
from tests.harness.stun import stun_server
from tests.interop.play import ROLES, Manners, Meeting, Role, Servers, meet
from tests.interop.stacks import lack, relay_process, started
from tests.interop.stage import Scene, Stage

pytestmark = pytest.mark.e2e

NAMES: Final = ("chromium", "firefox", "werift", "node-datachannel", "wrtc", "gstreamer")


class Cast:
    """A relay, and the stacks that are running, each started when it is first met."""

    def __init__(self, exits: ExitStack) -> None:
        self._exits = exits
        self._stages: dict[str, Stage] = {}
        self.servers = Servers(exits.enter_context(relay_process()), exits.enter_context(stun_server()))

    def stage(self, name: str) -> Stage:
        """Return the stage of a stack."""
        if name not in self._stages or self._stages[name].dead:
            self._stages[name] = self._exits.enter_context(started(name))
        return self._stages[name]

    async def meet(self, name: str, role: Role, manners: Manners) -> Meeting:
        """Let `sdpx peer`, in that role, meet a stack."""
        return await meet(self.stage(name), self.servers, role, manners)


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    """Skip a test of a stack that is not installed, and say what to do; with CI=true it has failed."""
    callspec = getattr(request.node, "callspec", None)
    if callspec and (flaw := lack(callspec.params["name"])):
        if os.environ.get("CI") == "true":
            pytest.fail(flaw)
        pytest.skip(flaw)


@pytest.fixture(scope="module")
def cast() -> Iterator[Cast]:
    with ExitStack() as exits:
        yield Cast(exits)


def told(meeting: Meeting) -> list[str]:
    """Return each candidate that the other side told of, in its description or behind it."""
    texts = [str(report) for report in meeting.scene.reports if report["event"] == "told"]
    return [found for text in texts for found in re.findall(r"candidate:(\S+ \d+ \w+ .*? typ \w+)", text)]


@pytest.mark.parametrize("trickle", [True, False], ids=["trickling", "whole"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", NAMES)
async def test_a_stack_is_met(cast: Cast, name: str, role: Role, trickle: bool) -> None:
    """It connects, talks text and binary both ways, and parts, in either role of sdpx; trickling or not."""
    assert told(await cast.meet(name, role, Manners(trickle=trickle)))


@pytest.mark.parametrize("trickle", [True, False], ids=["trickling", "whole"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["chromium-mdns", "firefox-mdns"])
async def test_a_browser_that_hides_its_addresses_is_met(cast: Cast, name: str, role: Role, trickle: bool) -> None:
    """All that it tells are .local names; whether they resolve here or not, its checks reach sdpx, and so it connects."""
    candidates = told(await cast.meet(name, role, Manners(trickle=trickle)))
    assert candidates
    assert all(candidate.split()[4].endswith(".local") for candidate in candidates)


MANNERS: Final = {
    "candidates_and_end_before_the_description": Manners(early=True),
    "empty_end_before_the_description": Manners(early=True, end="empty"),
    "an_empty_end": Manners(end="empty"),
    "no_end": Manners(end="none"),
    "only_sdpMid": Manners(name="sdpMid"),
    "only_sdpMLineIndex": Manners(name="sdpMLineIndex"),
    "no_prefix": Manners(bare=True),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("manners", MANNERS.values(), ids=MANNERS.keys())
@pytest.mark.parametrize("name", ["chromium"])
async def test_ways_to_signal(cast: Cast, name: str, role: Role, manners: Manners) -> None:
    """What clients in the field do, each by itself, in one browser."""
    await cast.meet(name, role, manners)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "chromium"])
async def test_ways_to_signal_of_the_other_stacks(cast: Cast, name: str, role: Role) -> None:
    """In the others, the hardest of them, all at once."""
    await cast.meet(name, role, Manners(early=True, name="sdpMid", bare=True))


@pytest.mark.parametrize("trickle", [True, False], ids=["trickling", "whole"])
@pytest.mark.parametrize("name", ["chromium", "firefox", "gstreamer"])
async def test_an_offer_of_audio_and_video_too(cast: Cast, name: str, trickle: bool) -> None:
    """The data channel is the last of three m-lines, bundled with two that sdpx has no use for."""
    await cast.meet(name, "receiver", Manners(trickle=trickle, media=True))


# GStreamer's webrtcbin ends without a word of DTLS or SCTP: it vanishes.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "gstreamer"])
async def test_the_other_side_closes_its_connection(cast: Cast, name: str) -> None:
    """No channel is closed, the relay hears nothing: the end of the connection itself is what `--once` ends by."""
    await cast.meet(name, "receiver", Manners(parting="leave"))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_the_page_of_the_readme(cast: Cast, name: str, role: Role) -> None:
    """Opened, given an ID and told to pair, or paired with: its buttons do what they say, its log tells all of it."""
    stage = cast.stage(name)
    if role == "initiator":
        page = stage.play(page=True, relay=cast.servers.relay)
        async with peer(cast.servers.relay, "--once", "--pair", (await page.heard("id"))["id"]) as (program, _):
            await talk_with_page(program, page)
    else:
        async with peer(cast.servers.relay, "--once") as (program, peer_id):
            await talk_with_page(program, stage.play(page=True, relay=cast.servers.relay, target=peer_id))


async def talk_with_page(program: Program, page: Scene) -> None:
    await program.wait_for("channel_open")
    await program.say("grüße ☃")
    await page.heard("line", text="peer: grüße ☃")
    await page.heard("line", text="connection connected")
    await program.wait_for("channel_message", text="hello from the page")
    await program.end_input()
    assert await program.ended() == 0
    await page.heard("line", text="peer gone: closed")


def test_the_document_names_the_stacks() -> None:
    """The stacks in its table are those that are tested."""
    document = Path(__file__).parent.parent.parent / "sdpx" / "docs" / "interop.md"
    assert tuple(re.findall(r"^\| `([\w-]+)` ", document.read_text(), re.MULTILINE)) == NAMES
