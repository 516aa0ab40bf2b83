"""URLs of relays and of other services: validation, and masking of their secrets. Pure."""

import re
from base64 import b64encode
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

MASK: Final = "***"
DEFAULT_PORT: Final = 8765
MAX_SHOWN: Final = 200
_NO_HOST: Final = re.compile(r"""[\s"<>\\^`{|}$*]""")  # characters that no host name has
_VISIBLE: Final = re.compile(r"[!-~]*")
_TURN_PASSWORD: Final = re.compile(r"^(turns?:[^:@]*:).*@", re.DOTALL)  # turn:USER:PASS@HOST


def complete_relay_url(text: str) -> str:
    """Return the WebSocket URL that a user means: http(s):// is ws(s)://, and HOST or HOST:PORT is a URL, too.

    The port of a bare host is that of `sdpx serve`; port 443 stands for wss://.
    """
    text = re.sub(r"^(wss?|https?):/(?=[^/])", r"\1://", text.strip(), flags=re.IGNORECASE)
    if text.count(":") > 1 and re.fullmatch(r"[0-9A-Fa-f:.]+(%\w+)?", text):
        text = f"[{text}]"
    scheme, separator, rest = text.partition("://")
    if separator:
        known = {"http": "ws", "https": "wss"}
        return f"{known.get(scheme.lower(), scheme)}://{rest}"
    host, slash, path = text.partition("/")
    has_port = re.search(r":[^]:]*$", host) is not None
    if not host or (host.count(":") > 1 and "[" not in host):
        return text
    scheme = "wss" if host.endswith(":443") else "ws"
    return f"{scheme}://{host}{'' if has_port else f':{DEFAULT_PORT}'}{slash}{path}"


def page_link(relay_url: str, client_id: str) -> str:
    """Return the link to the relay's page that pairs a browser with a client; without user, password and query of the URL."""
    parts = urlsplit(relay_url)
    path = parts.path if parts.path.endswith("/") else f"{parts.path}/"
    return f"http{parts.scheme[2:]}://{parts.netloc.rpartition('@')[2]}{path}#pair={client_id}"


def redirected_relay_url(url: str, location: str) -> str:
    """Return the WebSocket URL for a redirect from `url` (RFC 9110, 10.2.2), without its query; empty if there is none."""
    try:
        target = urlsplit(urljoin(f"http{url[2:]}", location))
    except ValueError:
        return ""
    shown = complete_relay_url(f"{target.scheme}://{target.netloc.rpartition('@')[2]}{target.path}")
    return shown if validate_relay_url(shown) is None and len(shown) <= MAX_SHOWN else ""


def endpoint(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL, which is that of its scheme if it has none."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme in ("wss", "https") else 80)


def host_port(host: str, port: int) -> str:
    """Return `host:port` as in a URL: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def validate_relay_url(url: str) -> str | None:
    """Return the reason why a relay cannot have this URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"'{url}' is not a URL: its port is not a number from 1 to 65535, or its IPv6 address is invalid"
    if not _VISIBLE.fullmatch(parts.path + parts.query):
        return f"'{url}' has a character that must be percent-encoded in a URL"
    if parts.scheme not in ("ws", "wss"):
        return f"'{url}' is not a WebSocket URL; the form is ws://HOST:PORT or wss://HOST"
    if not parts.hostname or port == 0:
        return f"'{url}' has no host and port to connect to"
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        return f"'{url}' has an invalid host name"
    return f"'{url}' has an invalid host name" if _NO_HOST.search(parts.hostname) else None


def validate_http_url(url: str) -> str | None:
    """Return the reason why an HTTP service cannot have this URL; the URL, which may hold a password, is not quoted."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # raises for a label that is empty or too long
    except ValueError:
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        return "not an HTTP URL; the form is https://HOST/PATH"
    return None


def basic_authorization(url: str) -> str | None:
    """Return the value of an Authorization header with user and password of a URL (RFC 7617); None without them."""
    login, at, _ = urlsplit(url).netloc.rpartition("@")
    user, _, password = login.partition(":")
    credentials = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return f"Basic {credentials}" if at else None


def mask_secrets(text: str) -> str:
    """Return a text; if it is a URL, with its password, the values of its query and its fragment masked."""
    if _TURN_PASSWORD.match(text) or "://" not in text:  # a password may contain ://
        return _TURN_PASSWORD.sub(rf"\1{MASK}@", text)
    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = f"{name}:{MASK}@{host}" if colon else f"{MASK}@{host}" if at else host
    pairs = [pair.partition("=") for pair in parts.query.split("&")] if parts.query else []
    query = "&".join(f"{key}={MASK}" if equals else MASK for key, equals, _ in pairs)  # a key alone may be a credential
    return parts._replace(netloc=shown, query=query, fragment=MASK if parts.fragment else "").geturl()
