"""The relay's page in real browsers, against real relays and peers."""

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio_websocket import open_websocket_url

from sdpx.peer.webrtc.peer_connection import host_addresses
from sdpx.relay.auth.keys import secret_key, sign
from sdpx.relay.auth.tokens import make_claims
from sdpx.remedies import REMEDIES
from tests.docs.generate import EXAMPLES
from tests.doctor.test_check import SHORTENED
from tests.doctor.test_doctor import RESTRICTED, public_servers
from tests.harness.browser import Browser, browser
from tests.harness.coturn import LOGIN, coturn, free_port
from tests.harness.namespaces import PUBLIC, behind_nat
from tests.harness.processes import Program, peer, relay, sdpx
from tests.harness.programs import needs, needs_file

pytestmark = pytest.mark.e2e
SECRET: Final = "a-secret-of-at-least-32-bytes-for-hs256"
OWN_ID: Final = "document.querySelector('#link').href.includes('pair=') && sdpx.relay.id"
FINDINGS: Final = "({ violations }) => violations.map(({ id, impact, nodes }) => [id, impact, nodes[0].html])"
IS_OPEN: Final = "!document.querySelector('#text').disabled"


def page_of(url: str) -> str:
    return f"http{url.removeprefix('ws')}/"


def says(text: str) -> str:
    return f"document.querySelector('#messages').textContent.includes({json.dumps(text)})"


async def exchange_messages(page: Browser, other: Program) -> None:
    """Send a message each way."""
    await page.wait_for(IS_OPEN)
    await other.wait_for("channel_open")
    await page.fill("#text", "from the page")
    await other.wait_for("channel_message", text="from the page")
    await other.say("to the page")
    await page.wait_for(says("to the page"))


@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_browser_is_a_peer_in_both_roles_and_shows_its_connection(name: str) -> None:
    async with relay() as (_, url), browser(name) as page:
        await page.open(page_of(url))
        own_id = await page.wait_for(OWN_ID)
        async with peer(url, "--id", "bob") as (bob, _):
            await page.fill("#target", "bob")
            await exchange_messages(page, bob)
            await page.wait_for(
                "[...document.querySelectorAll('#pairs tr')].some((row) => row.className === 'selected')"
            )
            assert "channel open" in await page.text("#timeline")
            await page.click("#leave")
            await bob.wait_for("ready")
            await page.wait_for(says("the peer left"))
        async with peer(url, "--pair", own_id) as (alice, _):
            await exchange_messages(page, alice)
        await page.click("#run-check")
        await page.wait_for("!document.querySelector('#copy-report').disabled")
        results = [json.loads(line) for line in (await page.evaluate("sdpx.views.check.report")).splitlines()]
    found = {each["name"]: each["result"] for each in results[1:]}
    assert found["relay"] == found["connection to itself"] == "ok"
    assert found["stun"] == "warning"  # the public server cannot be reached from here, or the network has one
    assert results[0]["summary"].startswith("First: stun")


async def test_link_and_its_code_pair_two_pages_that_exchange_a_file(tmp_path: Path) -> None:
    packages = needs_file("node_modules/jsqr").parent.parent
    async with relay() as (_, url), browser("chromium") as one, browser("chromium") as two:
        await one.open(page_of(url))
        own_id = await one.wait_for(OWN_ID)
        await one.wait_for("document.querySelector('#qr').complete && document.querySelector('#qr').naturalWidth")
        picture = tmp_path / "page.png"
        picture.write_bytes(await one.screenshot())
        decode = [needs("node"), str(Path(__file__).parent / "decode_qr.mjs"), f"{packages}/", str(picture)]
        link = subprocess.run(decode, capture_output=True, text=True, check=True).stdout
        assert link == f"{page_of(url)}#pair={own_id}"
        await two.open(link)
        for page in (one, two):
            await page.wait_for(IS_OPEN)
        await one.fill("#text", "hello")
        await two.wait_for(says("hello"))
        content = "new File([new Uint8Array(300000).map((_, index) => index % 251)], 'data.bin')"
        await two.evaluate(
            "(sdpx.peer.addEventListener('file', ({ detail }) => { sdpx.received = detail.blob; }), true)"
        )
        await one.evaluate(f"(sdpx.peer.sendFiles([{content}]).then(() => {{ sdpx.sent = true; }}), true)")
        await two.wait_for("document.querySelector('#messages button')?.textContent")
        await two.click("#messages button")
        await two.wait_for("document.querySelector('#messages a[download=\"data.bin\"]')?.href")
        await one.wait_for("sdpx.sent")
        bytes_of = "sdpx.received.arrayBuffer().then((data) => new Uint8Array(data)"
        assert await two.evaluate(f"{bytes_of}.every((byte, at) => byte === at % 251))")
        assert await two.evaluate("sdpx.received.size") == 300_000


@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_page_exchanges_files_with_send_and_receive(name: str, tmp_path: Path) -> None:
    """As the receiver of `sdpx send`, in either role, and as the sender to `sdpx receive`."""
    content = bytes(index % 251 for index in range(300_000))
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
    (source / "data.bin").write_bytes(content)
    hash_of = "Array.from(new Uint8Array(data)).every((byte, at) => byte === at % 251) && data.byteLength"
    async with relay() as (_, url), browser(name) as page:
        await page.open(page_of(url))
        own_id = await page.wait_for(OWN_ID)
        await page.evaluate(
            "(sdpx.peer.addEventListener('file', ({ detail }) => { sdpx.received = detail.blob; }), true)"
        )
        send = ("send", str(source / "data.bin"), "--url", url, "--no-stun")
        for role in (("--to", own_id), ("--id", "ann")):
            async with sdpx(*send, *role) as sender:
                if role[0] == "--id":
                    await sender.wait_for("id_assigned")
                    await page.fill("#target", "ann")
                await page.wait_for("document.querySelector('#messages button')?.textContent")
                await page.click("#messages button")
                assert await sender.ended() == 0
            assert await page.wait_for(f"sdpx.received?.arrayBuffer().then((data) => {hash_of})") == len(content)
            await page.evaluate("(sdpx.received = null, true)")
            await page.wait_for("!sdpx.relay.peerId")
        receive = ("receive", str(target), "--url", url, "--no-stun", "--yes", "--id", "eve")
        async with sdpx(*receive) as receiver:
            await receiver.wait_for("id_assigned")
            await page.fill("#target", "eve")
            await page.wait_for("sdpx.peer.transfer && sdpx.peer.canSendFiles")
            made = "new File([new Uint8Array(300000).map((_, index) => index % 251)], 'from-page.bin')"
            await page.evaluate(f"(sdpx.peer.sendFiles([{made}]), true)")
            assert await receiver.ended() == 0
    assert (target / "from-page.bin").read_bytes() == content


async def test_page_keeps_its_id_at_a_reload_and_its_session_at_a_restart_of_the_relay() -> None:
    port = free_port()
    async with browser("chromium") as page:
        async with sdpx("serve", "--port", str(port)) as server:
            url = (await server.wait_for("server_listening"))["url"]
            await page.open(page_of(url))
            own_id = await page.wait_for(OWN_ID)
            async with peer(url, "--id", "bob") as (bob, _):
                await page.fill("#target", "bob")
                await exchange_messages(page, bob)
                behind = len(bob.lines)
                await page.evaluate("(location.reload(), true)")
                await bob.wait_for("channel_open", after=behind)  # the page requests the pairing again
                assert await page.wait_for(OWN_ID) == own_id
                await page.wait_for(IS_OPEN)
            assert await server.end() == 0
        async with sdpx("serve", "--port", str(port)):
            await page.wait_for("document.querySelector('#state').textContent === 'connected to the relay'")
            assert await page.wait_for(OWN_ID) == own_id


async def test_page_asks_for_a_token_and_sends_it_in_no_url(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    claims = make_claims("ann", (), None, time.time(), 600)
    token, admin = (sign(claims | more, secret_key(secret)) for more in ({}, {"admin": True}))
    strict = ("--auth-secret-file", str(secret), "--allow-origin", "https://elsewhere.example")
    async with relay(*strict) as (server, url), browser("chromium") as page:
        await page.open(page_of(url))
        await page.wait_for("!document.querySelector('#token-form').hidden")
        await page.fill("#token", "wrong")
        await page.wait_for("!document.querySelector('#token-form').hidden")
        await page.fill("#token", token)
        assert await page.wait_for(OWN_ID) == "ann"
        used = await page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name).join()")
        assert token not in f"{used}{await page.evaluate('location.href')}"
        await page.open(f"{page_of(url)}#token={admin}")
        assert await page.wait_for(OWN_ID) == "ann"
        await page.evaluate("(location.hash = '#relay', true)")
        await page.wait_for("document.querySelector('#clients button')?.textContent")
        await page.click("#clients button")
        await server.wait_for("client_disconnected", client_id="ann", code=1008)


async def test_check_names_a_silent_stun_server_and_a_wrong_turn_password(tmp_path: Path) -> None:
    silent = free_port()
    async with coturn(tmp_path) as port:
        servers = ("--ice-server", f"stun:127.0.0.1:{silent}", "--ice-server", f"turn:ann:wrong@127.0.0.1:{port}")
        async with relay(*servers) as (_, url), browser("chromium") as page:
            await page.open(page_of(url))
            await page.wait_for(OWN_ID)
            await page.click("#run-check")
            await page.wait_for("!document.querySelector('#copy-report').disabled")
            results = [json.loads(line) for line in (await page.evaluate("sdpx.views.check.report")).splitlines()]
    codes = {each["name"]: each.get("code") for each in results[1:]}
    assert codes["stun"] == "stun_silent"
    assert codes["turn"] in ("turn_refused", "turn_unreachable")
    assert "wrong" not in json.dumps([each for each in results if each.get("name") != "turn"])


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, True)])
async def test_page_is_accessible_and_fits_a_phone(width: int, dark: bool) -> None:
    axe = needs_file("node_modules/axe-core/axe.min.js")
    async with relay() as (_, url), browser("chromium") as page:
        await page.resize(width, 800, dark=dark)
        await page.open(page_of(url))
        await page.wait_for(OWN_ID)
        await page.evaluate(f"(() => {{ {axe.read_text()} ; return true; }})()")
        for view in ("peer", "check", "connection", "relay"):
            await page.evaluate(f"(location.hash = '#{view}', true)")
            await page.wait_for(f"!document.querySelector('[data-for={view}]').hidden")
            await trio.sleep(0.1)
            found = await page.evaluate(f"axe.run(document).then({FINDINGS})")
            assert [each for each in found if each[1] in ("serious", "critical")] == []
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view


async def test_example_of_the_client_module_works_from_a_file(tmp_path: Path) -> None:
    """The page in sdpx/docs/browser.md, for another port."""
    async with relay() as (_, url), browser("chromium") as page:
        example = tmp_path / "page.html"
        example.write_text(EXAMPLES["page.html"].read_text().replace("127.0.0.1:8765", url.removeprefix("ws://")))
        await page.open(example.as_uri())
        own_id = await page.wait_for("document.title")
        async with sdpx("peer", "--url", url, "--no-stun", "--pair", str(own_id)):
            await page.wait_for("document.title.startsWith('paired with')")


# ---- failures -------------------------------------------------------------------------------------------------------

# The facts of a connection that found no path. Each case changes some, and has the code of the diagnosis.
NO_PATH: Final = {
    "isInitiator": True,
    "timeline": ["paired", "offer sent", "answer received"],
    "local": [{"type": "host", "address": "192.0.2.1"}],
    "remote": [{"type": "host", "address": "192.0.2.2"}],
    "iceErrors": [],
    "pairs": 1,
}
TURN_401: Final = {"url": "turn:t.test", "errorCode": 401}
STUN_701: Final = {"url": "stun:s.test", "errorCode": 701}
ESTABLISHED: Final = [*NO_PATH["timeline"], "ICE connected"]  # type: ignore[misc]


async def test_diagnosis_of_the_page_has_the_code_that_the_facts_call_for() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "ice_failed"),
        ({"failure": "pairing_lost"}, "pairing_lost"),
        ({"timeline": ["paired", "offer sent"]}, "no_answer"),
        ({"timeline": ["paired", "offer sent"], "local": [], "pc": {"iceGatheringState": "complete"}}, "no_network"),
        ({"isInitiator": False, "timeline": ["paired"]}, "no_offer"),
        ({"isInitiator": False, "timeline": ["paired", "offer received", "answer sent"]}, "ice_failed"),
        ({"timeline": ESTABLISHED}, "dtls_failed"),
        ({"timeline": [*ESTABLISHED, "connected"]}, "no_channel"),
        ({"timeline": [*ESTABLISHED, "connected", "channel open"], "hasOpened": True}, "peer_silent"),
        ({"remote": [{"type": "host", "address": "a.local"}]}, "only_mdns"),
        ({"remote": []}, "no_common_candidates"),
        ({"pairs": 0}, "no_common_candidates"),
        ({"iceErrors": [TURN_401]}, "turn_refused"),
        ({"iceErrors": [{**TURN_401, "errorCode": 701}]}, "ice_failed"),
        ({"iceErrors": [STUN_701]}, "stun_silent"),
        ({"iceErrors": [STUN_701], "local": [{"type": "srflx", "address": "203.0.113.7"}]}, "ice_failed"),
    ]
    facts = [NO_PATH | changes for changes, _ in cases]
    for each in facts:
        each["timeline"] = [{"phase": phase} for phase in each["timeline"]]  # type: ignore[attr-defined]
    async with relay() as (_, url), browser("chromium") as page:
        await page.open(page_of(url))
        await page.wait_for(OWN_ID)
        judge = f"{json.dumps(facts)}.map((each) => diagnose(each, each.pairs))"
        found = await page.evaluate(f"import('/assets/connection.js').then(({{ diagnose }}) => {judge})")
        lines = await page.evaluate("fetch('/assets/connection.js').then((answer) => answer.text())")
    assert found == [code for _, code in cases]
    assert all(f"  {code}: (" in lines and code in REMEDIES for code in found)


async def test_page_says_why_no_connection_came_up() -> None:
    """With a peer that does not answer, one that answers nonsense, one that leaves, and one that is not there."""
    async with relay() as (_, url), browser("chromium") as page:
        await page.open(page_of(url))
        await page.wait_for(OWN_ID)
        diagnosis = "document.querySelector('#diagnosis').textContent"

        async def pair_with(name: str, timeout: int, *frames: dict[str, Any]) -> str:
            """Pair with a client that sends these frames once it is paired, and leaves; returns the diagnosis."""
            await page.evaluate(f"(sdpx.peer.timeout = {timeout}, true)")
            async with open_websocket_url(f"{url}/?id={name}") as client:
                await client.get_message()
                await page.fill("#target", name)
                while json.loads(await client.get_message())["type"] != "offer":
                    pass
                for frame in frames:
                    await client.send_message(json.dumps(frame))
                if timeout < 10_000 or frames:
                    await page.wait_for(diagnosis)
            said = str(await page.wait_for(f"{diagnosis}.includes('{name}') && {diagnosis}"))
            await page.wait_for("!sdpx.relay.peerId")
            return said

        said = await pair_with("mute", 1000)
        assert said.startswith("No answer from mute arrived within 1 s: check that its program answers offers")
        said = await pair_with("odd", 30_000, {"type": "answer", "sdp": "v=0\r\nnonsense"})
        assert said.startswith("The offer or answer of odd cannot be used (")
        assert said.endswith(f"{REMEDIES['bad_description'].remedy} (bad_description)")
        said = await pair_with("brief", 30_000)
        assert said.startswith("The peer brief left before the connection was established: ")
        await page.fill("#target", "absent")
        await page.wait_for(says("No peer 'absent' is connected to this relay"))


@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_page_whose_relay_is_gone_says_so(name: str) -> None:
    async with browser(name) as page:
        async with relay() as (_, url):
            await page.open(page_of(url))
            await page.wait_for(OWN_ID)
        remedy = REMEDIES["no_connection"].remedy
        said = f"The relay at {url.removeprefix('ws://')} cannot be reached: {remedy}"
        await page.wait_for(f"document.querySelector('#state').textContent === {json.dumps(said)}")
        codes, summary = await run_check(page)
    assert codes["relay"] == "no_connection"
    assert summary == f"First: relay {url.removeprefix('ws://')}: {remedy}"


@pytest.mark.long
@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_page_without_network_says_so_and_goes_on_with_it(name: str, tmp_path: Path) -> None:
    with behind_nat(RESTRICTED) as network:
        async with public_servers(network, tmp_path), browser(name, network) as page:
            await page.open(f"http://{PUBLIC[0]}:8765/")
            own_id = await page.wait_for(OWN_ID)
            network.unplug()
            codes, summary = await run_check(page)
            assert codes == {"relay": "no_network"}
            assert summary == f"First: relay 203.0.x.x:8765: {REMEDIES['no_network'].remedy}"
            network.plug_in()
            await page.wait_for("document.querySelector('#state').textContent === 'connected to the relay'")
            assert await page.wait_for(OWN_ID) == own_id


async def run_check(page: Browser) -> tuple[dict[str, str], str]:
    """Run the page's checks; returns the codes by check, and the summary."""
    await page.click("#run-check")
    await page.wait_for("!document.querySelector('#copy-report').disabled")
    summary, *checks = [json.loads(line) for line in (await page.evaluate("sdpx.views.check.report")).splitlines()]
    return {each["name"]: each["code"] for each in checks if "code" in each}, summary["summary"]


# ---- Safari ---------------------------------------------------------------------------------------------------------

# Features that Safari 16 lacks, or may lack; lookbehind in a regular expression, a syntax error there, is a test of the files.
SAFARI: Final = """
for (const name of ["onicecandidateerror", "sctp"]) delete RTCPeerConnection.prototype[name];
for (const name of ["address", "port", "type", "protocol", "foundation"]) delete RTCIceCandidate.prototype[name];
for (const name of ["RTCIceTransport", "RTCPeerConnectionIceErrorEvent", "Iterator"]) delete globalThis[name];
for (const name of ["fromAsync"]) delete Array[name];
for (const name of ["toSorted", "toSpliced", "toReversed", "with"]) delete Array.prototype[name];
for (const type of [Object, Map, Promise, URL])
  for (const name of ["groupBy", "withResolvers", "try", "canParse", "parse"]) delete type[name];
for (const name of ["map", "filter", "toArray", "some", "every", "find", "flatMap", "take", "forEach", "reduce", "drop"])
  delete Object.getPrototypeOf(Object.getPrototypeOf([].values()))[name];
delete Navigator.prototype.clipboard;
const getStats = RTCPeerConnection.prototype.getStats;
RTCPeerConnection.prototype.getStats = async function () {
  const kept = new Map();
  for (const [id, { selectedCandidatePairId, address, ...rest }] of await getStats.call(this))
    kept.set(id, address === undefined ? rest : { ...rest, ip: address });
  return kept;
};
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["chromium", "firefox"])
async def test_page_is_right_without_what_safari_lacks(name: str, tmp_path: Path) -> None:
    host = host_addresses()[0]  # Firefox asks no server at a loopback address
    async with coturn(tmp_path, host=host) as port:
        turn = f"{host}:{port}"
        servers = [f"stun:{host}:{free_port()}", f"turn:{LOGIN}@{turn}", f"turn:ann:wrong@{turn}?transport=tcp"]
        options = [word for server in servers for word in ("--ice-server", server)]
        async with relay(*options) as (_, url), browser(name) as page, peer(url, "--id", "bob") as (bob, _):
            await page.before_each_page(SAFARI)
            await page.open(page_of(url))
            await page.wait_for(OWN_ID)
            assert await page.evaluate("'onicecandidateerror' in RTCPeerConnection.prototype") is False
            await page.fill("#target", "bob")
            await exchange_messages(page, bob)
            selected = "[...document.querySelectorAll('#pairs tr.selected td')].map(({ textContent }) => textContent)"
            row = await page.wait_for(f"{selected}.length && {selected}")
            assert row[0] == "yes"
            assert all(re.fullmatch(r"(?:\d+(\.\d+){3}|\[[0-9a-f:]+\]):\d+", cell) for cell in row[2:4]), row
            await page.click("#run-check")
            await page.wait_for("!document.querySelector('#copy-report').disabled")
            lines = (await page.evaluate("sdpx.views.check.report")).splitlines()[1:]
            checks = [json.loads(line) for line in lines]
            found = [(each["name"], each["result"], each.get("code")) for each in checks]
            assert [each for each in found if each[0] in ("stun", "turn")] == [
                ("stun", "warning", "stun_silent"),
                ("turn", "ok", None),
                ("turn", "failed", "turn_unknown"),
            ]
            assert ("connection by TURN", "ok", None) in found
            texts = [text for text, _ in SHORTENED]
            shorten = (
                f"import('/assets/page.js').then(({{ shortenAddresses }}) => {json.dumps(texts)}.map(shortenAddresses))"
            )
            assert await page.evaluate(shorten) == [shortened or text for text, shortened in SHORTENED]
