"""Network namespaces: a client behind a NAT, and a public network with two addresses. They need root and Linux."""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.harness.programs import needs

CLONE_NEWNET = 0x40000000
PUBLIC = ("203.0.113.2", "203.0.113.3")
CLIENT = "10.77.0.2"


@dataclass(frozen=True)
class Network:
    """The commands that run a program in the namespace of the client, and in the public one."""

    client: tuple[str, ...]
    public: tuple[str, ...]

    def disable_ipv6(self) -> None:
        """Take IPv6 from the client."""
        switch = "net.ipv6.conf.all.disable_ipv6=1"
        subprocess.run([*self.client, "sysctl", "-q", "-w", switch], check=True, capture_output=True)

    def unplug(self) -> None:
        """Take the network from the client, but for loopback."""
        self._ip("link set eth0 down")

    def plug_in(self) -> None:
        """Give the network back."""
        self._ip("link set eth0 up")
        self._ip("route add default via 10.77.0.1")

    def _ip(self, command: str) -> None:
        subprocess.run(["ip", "-n", self.client[-1], *command.split()], check=True, capture_output=True)

    async def open_stream(self, port: int) -> trio.SocketStream:
        """Connect to a port of loopback in the namespace of the client."""
        made: list[socket.socket] = []
        thread = threading.Thread(target=lambda: made.append(_socket_in(self.client[-1])))
        thread.start()  # it alone is in the namespace, and then ends
        thread.join()
        connection = trio.socket.from_stdlib_socket(made[0])
        try:
            await connection.connect(("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        return trio.SocketStream(connection)

    @contextmanager
    def name_hosts(self, hosts: dict[str, tuple[str, ...]]) -> Iterator[None]:
        """Let these names have these addresses for the client."""
        folder = Path("/etc/netns") / self.client[-1]
        folder.mkdir(parents=True)
        lines = [f"{address} {name}\n" for name, addresses in hosts.items() for address in addresses]
        (folder / "hosts").write_text("".join(lines))
        try:
            yield
        finally:
            shutil.rmtree(folder)


def _socket_in(namespace: str) -> socket.socket:
    """Let this thread enter a namespace, and return a socket of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{namespace}").open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns failed")
    return socket.socket()


def needs_namespaces() -> None:
    """Skip the test without root, ip or iptables; it fails if CI=true and only a program is missing."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("ip", "iptables"):
        needs(program)
    probe = subprocess.run(["unshare", "-n", "iptables", "-t", "nat", "-L"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no network namespace with a NAT: {probe.stderr.decode().strip()}")


@contextmanager
def behind_nat(*rules: str) -> Iterator[Network]:
    """Make the namespaces; `rules` are iptables commands for the router, without `iptables`."""
    needs_namespaces()
    names = [f"sdpx-{kind}-{os.getpid()}" for kind in ("client", "router", "public")]
    client, router, public = names

    def run(command: str) -> None:
        subprocess.run(command.split(), check=True, capture_output=True)

    try:
        for name in names:
            run(f"ip netns add {name}")
            run(f"ip -n {name} link set lo up")
        run(f"ip -n {client} link add eth0 type veth peer name in0 netns {router}")
        run(f"ip -n {public} link add eth0 type veth peer name out0 netns {router}")
        for name, device, address in (
            (client, "eth0", f"{CLIENT}/24"),
            (router, "in0", "10.77.0.1/24"),
            (router, "out0", "203.0.113.1/24"),
            *((public, "eth0", f"{address}/24") for address in PUBLIC),
        ):
            run(f"ip -n {name} address add {address} dev {device}")
            run(f"ip -n {name} link set {device} up")
        run(f"ip -n {client} route add default via 10.77.0.1")
        run(f"ip netns exec {router} sysctl -q -w net.ipv4.ip_forward=1")
        for rule in rules:
            run(f"ip netns exec {router} iptables {rule}")
        yield Network(("ip", "netns", "exec", client), ("ip", "netns", "exec", public))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
