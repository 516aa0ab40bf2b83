"""Undelivered frames: which senders are notified when a session has ended."""

from typing import Any, cast

import pytest

from sdpx.relay.client import ClientSession
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.overload import QueuedBytes
from sdpx.relay.core.rate_limit import AddressLimit, ClientRateLimit
from sdpx.relay.core.replay_buffer import ReplayBuffer
from sdpx.relay.delivery import drop_read_frames, senders_to_notify
from sdpx.relay.websocket.close_reasons import CONNECTION_LOST, SLOW_CONSUMER, CloseReason


class ClosedConnection:
    """A connection that has ended, with the frames left in its queue."""

    def __init__(self, undelivered: tuple[object, ...] = (), frames: int = 0) -> None:
        self.undelivered = undelivered
        self.queue = self
        self.frames = [b""] * frames


def session(name: str) -> ClientSession:
    return ClientSession(name, "remote", "address", ClientRateLimit(0, 0, AddressLimit(0), "address"), 0.0)


A, B, C = session("a"), session("b"), session("c")


def ended(connection: ClosedConnection, *, unacknowledged: list[object] | None = None) -> ClientSession:
    receiver = session("receiver")
    receiver.connection = cast("Any", connection)
    if unacknowledged is not None:
        receiver.replay, receiver.unacknowledged = ReplayBuffer("receiver", Limits(), QueuedBytes()), unacknowledged
    return receiver


def test_senders_of_frames_that_were_not_written_are_notified_once() -> None:
    """In the order of sending."""
    assert senders_to_notify(ended(ClosedConnection((B, A, B)))) == [B, A]


def test_the_last_peer_is_not_notified() -> None:
    """The last peer gets `peer_disconnected` instead."""
    receiver = ended(ClosedConnection((A, B)))
    receiver.last_peer = A
    assert senders_to_notify(receiver) == [B]


def test_senders_of_unacknowledged_frames_of_a_resumable_client_are_notified() -> None:
    """Whatever its connection has written."""
    assert senders_to_notify(ended(ClosedConnection((A,)), unacknowledged=[C])) == [C]


def test_a_suspended_session_without_a_connection_has_senders_to_notify() -> None:
    receiver = ended(ClosedConnection(), unacknowledged=[A])
    receiver.connection = None
    assert senders_to_notify(receiver) == [A]


@pytest.mark.parametrize(
    ("close_reason", "queued", "notified"),
    [
        (CloseReason("closed", 1000, ""), 0, []),
        (CloseReason("closed", 1000, ""), 1, [A]),
        (CONNECTION_LOST, 0, [A]),
        (SLOW_CONSUMER, 0, [A]),
    ],
)
def test_a_client_that_closes_after_reading_has_read_its_frames(
    close_reason: CloseReason, queued: int, notified: list[ClientSession]
) -> None:
    """The client sent a close frame after all frames had been written, so that an ack may be on its way."""
    receiver = ended(ClosedConnection(frames=queued), unacknowledged=[A])
    drop_read_frames(receiver, close_reason)
    assert senders_to_notify(receiver) == notified
