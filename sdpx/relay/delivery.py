"""Undelivered frames: which senders are notified that a frame which the relay accepted did not reach its receiver.

Every relayed frame reaches its receiver, or its sender is notified that it may not have:

- A sender that is paired with the receiver when the receiver's session ends gets `peer_disconnected`, from the pairing table.
- Every other sender of an undelivered frame gets one `error` with the code `peer_unreachable` (`senders_to_notify`).

A frame is undelivered
- to a plain client, if it was in the send queue when the socket closed: the connection collects the senders in `undelivered`;
- to a resumable client, if it was not acknowledged when the session ended. An exception is a client that sent a close frame
  after all its frames had been written: it is taken to have read them.
"""

from sdpx.protocol.messages import ErrorFrame
from sdpx.relay.client import ClientSession
from sdpx.relay.cluster.effects import RemoteSender
from sdpx.relay.websocket.close_reasons import ABNORMAL, CloseReason


def drop_read_frames(session: ClientSession, close_reason: CloseReason) -> None:
    """Take the frames of a resumable session for delivered if the client closed its connection after all were written."""
    closed_by_client = close_reason.reason == "closed" and close_reason.code != ABNORMAL
    if (
        session.unacknowledged
        and closed_by_client
        and session.connection is not None
        and not session.connection.queue.frames
    ):
        session.unacknowledged = []


def senders_to_notify(session: ClientSession) -> list[ClientSession | RemoteSender]:
    """Return the sessions whose frames this session, which has ended, did not receive: each once, in the order of sending."""
    senders: list[object] | tuple[object, ...] = ()
    if session.unacknowledged is not None:
        senders = session.unacknowledged
    elif session.connection is not None:
        senders = session.connection.undelivered
    if not senders:
        return []
    return [
        each
        for each in dict.fromkeys(senders)
        if isinstance(each, ClientSession | RemoteSender) and each != session.last_peer
    ]


def peer_unreachable(receiver_id: str) -> ErrorFrame:
    """Return the message to the sender of a frame that the receiver did not get."""
    return ErrorFrame(
        "peer_unreachable",
        f"'{receiver_id}' disconnected, or could not be reached, before all your messages were delivered",
    )
