"""Checks of the relay, from the name in its URL to a pairing: each needs the ones before it."""

import ssl
import time
from base64 import urlsafe_b64decode
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from socket import SOCK_STREAM, gaierror
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import ConnectionClosed

from sdpx.client_tls import (
    connect_causes,
    describe_connect_failure,
    lacks_route,
    open_stream,
    relay_context,
    tls_cause,
    tls_code,
    tls_reason,
)
from sdpx.concurrency import leaf_exceptions
from sdpx.doctor.check import Check, passed, problem, refused, skipped
from sdpx.doctor.options import DoctorOptions
from sdpx.doctor.recorder import CheckRecorder
from sdpx.errors import Ending, ExitStatus, describe_os_error
from sdpx.peer.signaling.connection import SignalingConnection, dial
from sdpx.protocol import codec
from sdpx.protocol.messages import Candidate, CandidateInit, Description, ErrorFrame, Paired, PairRequest
from sdpx.urls import endpoint

STEP_SECONDS: Final = 10.0
PINGS: Final = 20
SLOW_SECONDS: Final = 1.0
SKEW_SECONDS: Final = 5.0
CERTIFICATE_DAYS: Final = 14
TOKEN_SECONDS: Final = 300
_DAY: Final = 86_400
_NO_CLOSE_FRAME: Final = 1006  # RFC 6455, 7.4.1: neither the relay nor a client ends a connection like this
# Frames of a pairing, which must arrive unchanged: unusual, but valid.
_SDP: Final = 'v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=x-sdpx-doctor:\u00e4\u20ac \\"\r\n'
_CANDIDATE: Final = CandidateInit("candidate:1 1 UDP 1 192.0.2.1 9 typ host", "0", 0)


class RelayChecks:
    """The checks of one relay; `ice_servers` is its list, once a client has an ID there, and `works` whether it pairs."""

    def __init__(self, options: DoctorOptions, recorder: CheckRecorder) -> None:
        self._options = options
        self._recorder = recorder
        self._peer = options.peer
        self._host, self._port = endpoint(options.url)
        self._tls = relay_context(options.url, options.access)
        self._addresses: list[str] = []
        self.ice_servers: Any = None
        self.works = False

    async def run(self) -> None:
        """Make the checks in order; a failure ends them."""
        target = f"{self._host}:{self._port}"
        for name, step in (("name resolution", self._resolve), ("tcp", self._connect), ("tls", self._handshake)):
            check = await self._recorder.record(name, self._host if step == self._resolve else target, step)
            if check.result == "failed":
                return
        await self._signaling()

    # ---- the way to the relay -------------------------------------------------------------------------------------

    async def _resolve(self, target: str) -> Check:
        try:
            with trio.fail_after(STEP_SECONDS):
                found = await trio.socket.getaddrinfo(self._host, self._port, type=SOCK_STREAM)
        except (gaierror, trio.TooSlowError, UnicodeError) as error:
            sentence = f"The name {self._host} cannot be resolved: {describe_os_error(error)}"
            return problem("name resolution", target, "name_unresolved", sentence)
        self._addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        by_family = {
            "ipv4": [each for each in self._addresses if ":" not in each],
            "ipv6": [each for each in self._addresses if ":" in each],
        }
        return passed("name resolution", target, ", ".join(self._addresses), **by_family)

    async def _connect(self, target: str) -> Check:
        """Connect to each address by TCP; one that answers is enough."""
        results: dict[str, str] = {}
        errors: list[BaseException] = []
        for address in self._addresses:
            began = trio.current_time()
            try:
                with trio.fail_after(STEP_SECONDS / 2):
                    stream = await trio.open_tcp_stream(address, self._port)
                results[address] = f"{(trio.current_time() - began) * 1000:.1f} ms"
                await stream.aclose()
            except (OSError, trio.TooSlowError) as error:
                errors += connect_causes(error)
                results[address] = (
                    "no answer" if isinstance(error, trio.TooSlowError) else describe_connect_failure(error)
                )
        sentence = ", ".join(f"{address}: {result}" for address, result in results.items())
        if any(result.endswith(" ms") for result in results.values()):
            return passed("tcp", target, sentence, addresses=results)
        if any(isinstance(each, ConnectionRefusedError) for each in errors):
            code = "port_closed"
        else:
            only_ipv6 = all(":" in each for each in self._addresses)
            code = "no_ipv6" if only_ipv6 and all(map(lacks_route, errors)) else "no_route"
        return problem("tcp", target, code, f"No connection: {sentence}", addresses=results)

    async def _handshake(self, target: str) -> Check:
        """Check TLS: chain, name, validity, version."""
        if self._tls is None:
            return skipped("tls", target, "The URL is ws://, without TLS")
        try:
            with trio.fail_after(STEP_SECONDS):
                stream: Any = await open_stream(self._host, self._port, self._tls)
                version, certificate = stream.version(), stream.getpeercert()
                await trio.aclose_forcefully(stream)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            cause = tls_cause(error)
            sentence = tls_reason(cause) if cause is not None else describe_os_error(error)
            return problem("tls", target, tls_code(cause) if cause else "tls_failed", f"TLS failed: {sentence}")
        if not certificate:
            return problem("tls", target, "certificate_unverified", f"{version}, not verified", version=version)
        ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        days = int((ends - time.time()) // _DAY)
        names = [str(name) for kind, name in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
        evidence = {"version": version, "days_left": days, "names": names}
        if days < CERTIFICATE_DAYS:
            sentence = f"The certificate expires in {days} days"
            return problem("tls", target, "certificate_expires", sentence, **evidence)
        return passed("tls", target, f"{version}, certificate for {', '.join(names)}, {days} days left", **evidence)

    # ---- signaling ------------------------------------------------------------------------------------------------

    async def _signaling(self) -> None:
        """Open a WebSocket and use it: ID, token, round trips, clock, and a pairing with a second client."""
        shown, record = self._peer.shown_url, self._recorder.record
        ending: Ending | None = None
        self._recorder.begin("upgrade", shown)
        try:
            async with self._dial() as connection:
                your_id = connection.your_id
                self.ice_servers = None if your_id.ice_servers is msgspec.UNSET else your_id.ice_servers
                self._recorder.add(_upgraded(shown, connection))
                self._recorder.add(passed("id", shown, f"The relay gave the ID {your_id.id}", id=your_id.id))
                self._recorder.add(self._token(shown))
                await record("round trip", shown, self._round_trip, connection)
                await record("clock", shown, self._clock)
                self.works = (await record("pairing", shown, self._pairing, connection)).result != "failed"
        except* Ending as group:
            ending = leaf_exceptions(group)[0]
        except* ConnectionClosed:
            ending = Ending("relay_lost", "The relay closed the connection during the checks", ExitStatus.RELAY)
        if ending is not None:
            self._recorder.add(refused("upgrade", shown, ending))

    def _dial(self, *, keeps_alive: bool = True) -> AbstractAsyncContextManager[SignalingConnection]:
        url, shown, headers = self._peer.dial_url_for(None), self._peer.shown_url, self._peer.dial_headers
        return dial(url, shown, self._tls, headers, keeps_alive=keeps_alive)

    def _token(self, shown: str) -> Check:
        """Check the claims of the token, which the relay has accepted."""
        if self._options.access.token is None:
            return skipped("token", shown, "None is given, and the relay needs none")
        claims = _claims(self._options.access.token)
        ends = claims.get("exp")
        evidence = {key: claims[key] for key in ("sub", "exp", "pair") if key in claims}
        if not isinstance(ends, int | float):
            return passed("token", shown, "The relay accepted it", **evidence)
        left = int(ends - time.time())
        if left < TOKEN_SECONDS:
            return problem(
                "token", shown, "token_expires", f"The token expires in {left} s", seconds_left=left, **evidence
            )
        return passed("token", shown, f"The relay accepted it; it expires in {left} s", seconds_left=left, **evidence)

    async def _round_trip(self, shown: str, connection: SignalingConnection) -> Check:
        times = []
        with trio.move_on_after(STEP_SECONDS):
            for _ in range(PINGS):
                began = trio.current_time()
                await connection.ping()
                times.append(trio.current_time() - began)
        if not times:
            return problem("round trip", shown, "slow_relay", f"No pong within {STEP_SECONDS:.0f} s")
        figures = {
            "min_ms": round(min(times) * 1000, 1),
            "median_ms": round(median(times) * 1000, 1),
            "max_ms": round(max(times) * 1000, 1),
            "pings": len(times),
        }
        sentence = "{min_ms} ms min, {median_ms} ms median, {max_ms} ms max of {pings} pings".format(**figures)
        if len(times) < PINGS or median(times) > SLOW_SECONDS:
            return problem("round trip", shown, "slow_relay", sentence, **figures)
        return passed("round trip", shown, sentence, **figures)

    async def _clock(self, shown: str) -> Check:
        """Compare this machine's clock with the `Date` (RFC 9110, 6.6.1) of the relay, or of the proxy before it."""
        date = await self._date()
        if date is None:
            return skipped("clock", shown, "The relay's answers have no Date")
        skew = round(time.time() - date, 1)  # a Date has whole seconds
        if abs(skew) > SKEW_SECONDS:
            sentence = f"This machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the relay's"
            return problem("clock", shown, "clock_skew", sentence, skew_seconds=skew)
        return passed("clock", shown, f"{abs(skew):.1f} s apart", skew_seconds=skew)

    async def _date(self) -> float | None:
        """Return the time in the response to a plain GET."""
        head = b""
        path = urlsplit(self._options.url).path or "/"
        request = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n"
        try:
            with trio.fail_after(STEP_SECONDS / 2):
                async with await open_stream(self._host, self._port, self._tls) as stream:
                    await stream.send_all(request.encode())
                    while b"\r\n\r\n" not in head and len(head) < 65_536:  # noqa: PLR2004  bytes
                        data = await stream.receive_some(65_536)
                        if not data:
                            break
                        head += data
        except (OSError, trio.BrokenResourceError, trio.TooSlowError):
            return None
        for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"date":
                try:
                    return parsedate_to_datetime(value.decode("latin-1").strip()).timestamp()
                except ValueError:
                    return None
        return None

    async def _pairing(self, shown: str, first: SignalingConnection) -> Check:
        """Pair two clients of this program, and relay an offer, an answer and a candidate between them."""
        name, ending, changed = "pairing", None, None
        try:
            with trio.fail_after(STEP_SECONDS):
                async with self._dial() as second:
                    changed = await _exchange(first, second)
        except* Ending as group:
            ending = leaf_exceptions(group)[0]
        except* (trio.TooSlowError, ConnectionClosed):
            changed = f"Two clients of the relay could not pair and exchange frames within {STEP_SECONDS:.0f} s"
        if isinstance(ending, Ending):
            if ending.code in ("id_taken", "too_many_connections"):
                return skipped(
                    name, shown, "The token allows one ID, or the relay one connection: --with ID checks a pairing"
                )
            return refused(name, shown, ending)
        if changed is not None:
            return problem(name, shown, "frames_changed", changed)
        return passed(name, shown, "Offer, answer and candidate arrived as they were sent")

    async def check_idle(self) -> None:
        """Check whether a connection without messages, but for the relay's own pings, lives for `--idle`."""
        await self._recorder.record("idle", self._peer.shown_url, self._idle)

    async def _idle(self, shown: str) -> Check:
        seconds, began, failure = self._options.idle, trio.current_time(), ""
        if not seconds:
            return skipped("idle", shown, "Not asked for (--idle 0)")
        try:
            async with self._dial(keeps_alive=False) as connection:
                with trio.move_on_after(seconds) as deadline:
                    while await connection.receive() is not None:
                        pass
                closed = connection.close_reason
        except* Ending as group:
            failure = str(leaf_exceptions(group)[0])
        if failure:
            return skipped("idle", shown, failure)
        lived = round(trio.current_time() - began, 1)
        if deadline.cancelled_caught:
            return passed("idle", shown, f"The connection lived for {seconds:g} s without a message", seconds=lived)
        if closed is not None and closed.code != _NO_CLOSE_FRAME:
            sentence = f"The relay closed the connection after {lived} s (code {closed.code} {closed.reason or ''})"
            return refused("idle", shown, Ending("relay_lost", sentence, ExitStatus.RELAY), seconds=lived)
        sentence = f"The connection was cut after {lived} s without a message"
        return problem("idle", shown, "idle_closed", sentence, seconds=lived)


def _upgraded(shown: str, connection: SignalingConnection) -> Check:
    """Return the check of the WebSocket, with the traces of proxies."""
    headers = connection.response_headers
    traces = {name: headers[name][:100] for name in ("server", "via") if name in headers}
    path = urlsplit(shown).path.strip("/")
    through = f", through a proxy ({', '.join(traces.values())})" if traces else ""
    evidence = traces | ({"path_prefix": path} if path else {})
    return passed("upgrade", shown, f"The WebSocket is open{through}", **evidence)


async def _exchange(first: SignalingConnection, second: SignalingConnection) -> str | None:
    """Pair two clients and send frames both ways; returns a sentence about a frame that was changed. Raises an `Ending`."""
    await first.send(_text(PairRequest(second.your_id.id)))
    reply = await _receive(first, Paired, ErrorFrame)
    if isinstance(reply, ErrorFrame):
        raise Ending(reply.code, f"The relay refused a pairing: {reply.message}", ExitStatus.PAIRING_REFUSED)
    await _receive(second, Paired)
    offer, answer, candidate = Description("offer", _SDP), Description("answer", _SDP), Candidate(_CANDIDATE)
    for sender, receiver, message in ((first, second, offer), (second, first, answer), (first, second, candidate)):
        await sender.send(_text(message))
        if await _receive(receiver, type(message), ErrorFrame) != message:
            return f"The {message.type} did not arrive as it was sent"
    return None


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT (RFC 7519), unverified; empty for another token."""
    try:
        body = token.split(".")[1]
        return msgspec.json.decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=dict[str, Any])
    except (IndexError, ValueError):
        return {}


def _text(message: msgspec.Struct) -> str:
    return codec.encode(message).decode()


async def _receive(connection: SignalingConnection, *kinds: type) -> Any:
    """Wait for a message of one of these classes. Raises `TooSlowError` if the connection is closed instead."""
    while (text := await connection.receive()) is not None:
        message = codec.parse_server(text)
        if isinstance(message, kinds):
            return message
    raise trio.TooSlowError
