"""Cluster options of `sdpx serve`. Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from sdpx.options import option


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Options of a relay that is a node of a cluster."""

    cluster: str | None = option(
        None,
        "Be a node of the cluster in this Redis or Valkey: redis://USER:PASS@HOST:PORT/DB, rediss:// for TLS.",
        "Cluster",
        "URL",
    )
    cluster_password_file: str | None = option(
        None, "File with the password for --cluster, in place of one in the URL.", "Cluster", "FILE"
    )
    cluster_prefix: str = option("sdpx:", "Start of the names of all keys.", "Cluster", "TEXT")
    cluster_lease: float = option(
        1.5, "Time after which a node that does not renew its lease is removed.", "Cluster", "SECONDS", 0.5, 60
    )


def validate_cluster_url(url: str) -> str | None:
    """Return the reason why an engine cannot have this URL; the URL, which may hold a password, is not quoted."""
    try:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        valid = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
        valid = valid and (not database or database.isdecimal()) and not parts.query and not parts.fragment
    except ValueError:
        valid = False
    return (
        None if valid else "not the URL of an engine; the form is redis://HOST:PORT, or redis://USER:PASS@HOST:PORT/0"
    )
