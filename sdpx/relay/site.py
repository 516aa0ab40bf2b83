"""The page that the relay serves to browsers, its parts, and the client module `/sdpx.js`; the files are in relay/web.

The link of a client is the address of the page with `#pair=ID`; `/qr.svg` draws its QR code, and encodes nothing else.
"""

import io
import re
from importlib.resources import files
from typing import Final

import msgspec

from sdpx.ids import is_name
from sdpx.relay.auth.origins import Origins
from sdpx.relay.http.request import HttpRequest
from sdpx.relay.http.responses import JSON, HttpError, HttpResponse
from sdpx.relay.http.upgrade import Page, Pages
from sdpx.remedies import REMEDIES

WEB: Final = files("sdpx.relay") / "web"
TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# Nothing from elsewhere, no inline script or style; the page may connect to this relay and to others.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
)
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]{1,64}){0,8}/")


def site_pages(origins: Origins) -> Pages:
    """Return the page, its parts and the client module, which pages of the allowed `origins` may import."""
    parts = {f"/assets/{each.name}": _file(f"assets/{each.name}") for each in (WEB / "assets").iterdir()}

    def client_module(request: HttpRequest) -> HttpResponse:
        """Return the module, for pages of other origins, too (CORS)."""
        origin = ", ".join(request.values(b"origin")) or None
        allowed = (("Access-Control-Allow-Origin", origin),) if origin and origins.allow(origin) else ()
        return _response("sdpx.js", (*allowed, ("Vary", "Origin")))

    return {"/": _page, "/sdpx.js": client_module, "/qr.svg": _qr_code, "/assets/remedies.json": _remedies, **parts}


def _page(request: HttpRequest) -> HttpResponse | None:
    """Return the page for a browser; None for other programs."""
    if not any(each.partition(";")[0] == "text/html" for each in request.elements(b"accept")):
        return None
    return _response("index.html", (("Content-Security-Policy", CONTENT_SECURITY_POLICY), ("Vary", "Accept")))


def _file(name: str) -> Page:
    return lambda _request: _response(name)


def _response(name: str, headers: tuple[tuple[str, str], ...] = ()) -> HttpResponse:
    body = WEB.joinpath(name).read_bytes()
    content_type = f"{TYPES[name[name.rindex('.') :]]}; charset=utf-8"
    return HttpResponse(200, content_type, body, (*_HEADERS, *headers))


def _remedies(_request: HttpRequest) -> HttpResponse:
    """Return the remedy of each code of a diagnosis."""
    body = msgspec.json.encode({code: each.remedy for code, each in REMEDIES.items()})
    return HttpResponse(200, JSON, body, _HEADERS)


def _qr_code(request: HttpRequest) -> HttpResponse | HttpError:
    """Return the QR code of the link of a client: the page at this host, by `scheme` and `path`, with `#pair=ID`."""
    import segno  # noqa: PLC0415  only here, and only for a page

    query = {key: values[0] for key, values in request.query.items()}
    scheme, path, client_id = query.get("scheme", "http"), query.get("path", "/"), query.get("pair", "")
    host = ", ".join(request.values(b"host"))
    is_valid = scheme in ("http", "https") and _PATH.fullmatch(path) and _HOST.fullmatch(host) and is_name(client_id)
    if not is_valid:
        return HttpError(400, "bad_request", "A QR code needs 'pair', a client ID, and may have 'scheme' and 'path'")
    image = io.BytesIO()
    segno.make(f"{scheme}://{host}{path}#pair={client_id}", micro=False).save(image, kind="svg", scale=6, light="#fff")
    return HttpResponse(200, "image/svg+xml", image.getvalue(), _HEADERS)
