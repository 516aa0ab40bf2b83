"""A real browser that a test drives: Chromium by the DevTools protocol, Firefox by WebDriver BiDi."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from tests.harness.coturn import free_port
from tests.harness.namespaces import Network
from tests.harness.programs import needs
from tests.interop.stacks import CHROMIUM_FLAGS, FIREFOX_PREFERENCES, SHOW_ADDRESSES

Connect = Callable[[], Awaitable[trio.SocketStream]]

START_SECONDS: Final = 60.0
WAIT_SECONDS: Final = 40.0


class Browser:
    """One page of a browser."""

    def __init__(self, socket: WebSocketConnection, *, is_chromium: bool) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._is_chromium = is_chromium
        self._context = ""
        self._lock = trio.Lock()

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        async with self._lock:
            number = next(self._numbers)
            await self._socket.send_message(json.dumps({"id": number, "method": method, "params": parameters}))
            while (answer := json.loads(await self._socket.get_message())).get("id") != number:
                pass
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def start(self) -> None:
        """Prepare the page."""
        if self._is_chromium:
            await self.command("Page.enable")
        else:
            await self.command("session.new", capabilities={})
            tree = await self.command("browsingContext.getTree")
            self._context = tree["contexts"][0]["context"]

    async def open(self, url: str) -> None:
        """Load a page."""
        if self._is_chromium:
            await self.command("Page.navigate", url="about:blank")
            await self.command("Page.navigate", url=url)
        else:
            await self.command("browsingContext.navigate", context=self._context, url="about:blank", wait="complete")
            await self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def before_each_page(self, script: str) -> None:
        """Run a script in each page from now on, before its own ones."""
        if self._is_chromium:
            await self.command("Page.addScriptToEvaluateOnNewDocument", source=script)
        else:
            await self.command("script.addPreloadScript", functionDeclaration=f"() => {{ {script} }}")

    async def evaluate(self, expression: str) -> Any:
        """Return the JSON value of an expression, which may be a promise; None while the page is being loaded."""
        script = f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))"
        if self._is_chromium:
            result = await self.command("Runtime.evaluate", expression=script, awaitPromise=True)
            value = result["result"].get("value") if "exceptionDetails" not in result else None
        else:
            target = {"context": self._context}
            result = await self.command("script.evaluate", expression=script, target=target, awaitPromise=True)
            value = result["result"].get("value") if result["type"] == "success" else None
        return None if value is None else json.loads(value)

    async def wait_for(self, expression: str, seconds: float = WAIT_SECONDS) -> Any:
        """Wait until an expression has a value that is true, and return it."""
        value = None
        with trio.move_on_after(seconds):
            while not (value := await self.evaluate(expression)):
                await trio.sleep(0.1)
        assert value, f"{expression}: {await self.evaluate('document.body.innerText')}"
        return value

    async def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    async def click(self, selector: str) -> None:
        """Click an element."""
        await self.evaluate(f"(document.querySelector({json.dumps(selector)}).click(), true)")

    async def fill(self, selector: str, text: str) -> None:
        """Set a field's value and submit its form."""
        field = f"document.querySelector({json.dumps(selector)})"
        await self.evaluate(f"({field}.value = {json.dumps(text)}, {field}.form.requestSubmit(), true)")

    async def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the page, and its colour scheme (Chromium)."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.command("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self) -> bytes:
        """Return a picture of the page, as PNG."""
        if self._is_chromium:
            result = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        else:
            result = await self.command("browsingContext.captureScreenshot", context=self._context, origin="document")
        return base64.b64decode(result["data"])


@asynccontextmanager
async def browser(name: str, network: Network | None = None) -> AsyncIterator[Browser]:
    """Run a browser without a window: chromium or firefox; as the client of a network, if one is given."""
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="sdpx-browser-"))
    command = [needs("chromium"), *CHROMIUM_FLAGS, SHOW_ADDRESSES, f"--remote-debugging-port={port}"]
    command += ["--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"]
    if name == "firefox":
        preferences = FIREFOX_PREFERENCES | {"media.peerconnection.ice.obfuscate_host_addresses": False}
        lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});\n" for key, value in preferences.items()]
        (folder / "user.js").write_text("".join(lines))
        command = [needs("firefox"), "--headless", "--no-remote", "--profile", str(folder)]
        command += [f"--remote-debugging-port={port}", "about:blank"]
    connect = (
        partial(trio.open_tcp_stream, "127.0.0.1", port) if network is None else partial(network.open_stream, port)
    )
    process = await trio.lowlevel.open_process(
        [*(network.client if network else ()), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with trio.fail_after(START_SECONDS):
            path = await _page_path(connect, port) if name == "chromium" else "/session"
            await _until_open(connect, port, path)
        async with _socket(connect, port, path) as connection:
            page = Browser(connection, is_chromium=name == "chromium")
            with trio.fail_after(START_SECONDS):
                await page.start()
            yield page
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _page_path(connect: Connect, port: int) -> str:
    """Return the path of Chromium's page, once it has one."""
    request = f"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    while True:
        with suppress(OSError, trio.BrokenResourceError, StopIteration):
            async with await connect() as stream:
                await stream.send_all(request.encode())
                answer = b""
                async for part in stream:  # it does not close the connection
                    answer += part
                    with suppress(ValueError):
                        pages = json.loads(answer.partition(b"\r\n\r\n")[2])
                        page = next(each for each in pages if each["type"] == "page")
                        return str(urlsplit(page["webSocketDebuggerUrl"]).path)
        await trio.sleep(0.1)


@asynccontextmanager
async def _socket(connect: Connect, port: int, path: str) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket."""
    limit = 64 * 1024 * 1024
    async with await connect() as stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", path, max_message_size=limit)
        nursery.cancel_scope.cancel()


async def _until_open(connect: Connect, port: int, path: str) -> None:
    """Wait until a WebSocket can be opened."""
    while True:
        with suppress(Exception):
            async with _socket(connect, port, path) as socket:
                await socket.aclose()
            return
        await trio.sleep(0.2)
