"""The result of `sdpx bench --data`: the measurements of each end, the figures, and the limit of the throughput. Pure."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from sdpx.bench.options import MAX_FLOWS, MAX_MESSAGE, MAX_SECONDS
from sdpx.bench.report import Figures

BUSY: Final = 0.85  # share of the time, that of waiting for a core included, from which the CPU is the limit
LOSSY: Final = 0.001  # share of packets sent again from which loss is the limit, by the congestion window
WINDOW_CLOSED: Final = 65_536  # bytes of the other side's window that are left, at most


class DataJob(Struct, frozen=True):
    """The work of one end: it sends messages of `size` bytes for `seconds`, or receives them."""

    sends: bool
    size: Annotated[int, Meta(ge=1, le=MAX_MESSAGE)] = 65_536
    seconds: Annotated[float, Meta(ge=0, le=MAX_SECONDS)] = 5.0
    flows: Annotated[int, Meta(ge=1, le=MAX_FLOWS)] = 1
    stock: bool = False  # as with a version of aiortc that the extensions do not fit


class DataResult(Struct, frozen=True):
    """The measurements of one end: bytes, CPU seconds, share of the time in which it was busy, peak memory, figures of SCTP."""

    bytes: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    busy: float = 0.0
    memory: int = 0
    path: dict[str, float] = {}


def figures(job: DataJob, sender: DataResult, receiver: DataResult) -> Figures:
    """Return the result of a measurement."""
    path = sender.path
    return {
        "message_size": job.size,
        "seconds": round(receiver.seconds, 2),
        "flows": job.flows,
        "megabytes_per_s": round(receiver.bytes / receiver.seconds / 1e6, 2) if receiver.seconds else 0.0,
        "cpu_s_per_gb": {
            name: round(end.cpu / end.bytes * 1e9, 2) if end.bytes else None
            for name, end in (("sender", sender), ("receiver", receiver))
        },
        "busy": {"sender": round(sender.busy, 2), "receiver": round(receiver.busy, 2)},
        "memory_mb": {"sender": sender.memory // 2**20, "receiver": receiver.memory // 2**20},
        "rtt_ms": round(path.get("rtt", 0.0) * 1000, 2),
        "packets": int(path.get("packets_sent", 0)),
        "retransmissions": int(path.get("retransmissions", 0)),
        "timeouts": int(path.get("timeouts", 0)),
        "limit": limit(sender, receiver),
        "error": None,
    }


def limit(sender: DataResult, receiver: DataResult) -> str:
    """Return the limit of the throughput."""
    busiest = max((sender.busy, "the CPU of the sender"), (receiver.busy, "the CPU of the receiver"))
    path = sender.path
    if not path:
        return "unknown: the installed aiortc does not fit"
    if path.get("retransmissions", 0) > LOSSY * path.get("packets_sent", 0):
        return "the congestion window, which loss keeps small"
    if busiest[0] >= BUSY:
        return busiest[1]
    if path.get("peer_window", 0) <= WINDOW_CLOSED:
        return "the window of the receiver: it is sent once in a round trip"
    return "the congestion window, which was still growing"


def table(result: Figures) -> str:
    """Return the figures as lines."""
    cpu, busy, memory = result["cpu_s_per_gb"], result["busy"], result["memory_mb"]
    rows = {"peer": f"{result['peer']}, {result['path']}"} if "peer" in result else {}
    rows |= {
        "throughput": f"{result['megabytes_per_s']:,} MB/s (messages of {result['message_size']:,} bytes)",
        "CPU": f"sender {cpu['sender']} s/GB, receiver {cpu['receiver']} s/GB",
        "busy": f"sender {busy['sender']:.0%}, receiver {busy['receiver']:.0%}",
        "memory": f"sender {memory['sender']} MB, receiver {memory['receiver']} MB",
        "round trip": f"{result['rtt_ms']} ms",
        "packets": f"{result['packets']:,}; sent again {result['retransmissions']:,}, timeouts {result['timeouts']:,}",
        "limit": result["limit"],
    }
    return "".join(f"{name:<12}{value}\n" for name, value in rows.items())
