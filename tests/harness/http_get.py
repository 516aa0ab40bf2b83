"""One HTTP request on a connection of its own."""

import trio


async def http_get(port: int, path: str, seconds: float = 5.0) -> tuple[int, str]:
    """Return the status and the body of a page; the status is 0 if there is no answer within the time."""
    with trio.move_on_after(seconds):
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join([data async for data in stream])
        except (OSError, trio.BrokenResourceError):
            return 0, ""
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]) if head else 0, body.decode()
    return 0, ""
