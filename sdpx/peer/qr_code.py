"""Shows the link to a peer on the relay's page, and its QR code, to a person at a terminal."""

import sys
from contextlib import suppress


def print_link(link: str) -> None:
    """Print a link and its QR code on stderr; a closed stderr is no error."""
    import segno  # noqa: PLC0415  only for this option

    with suppress(OSError):
        segno.make(link, micro=False).terminal(out=sys.stderr, compact=True)
        sys.stderr.write(f"{link}\n")
        sys.stderr.flush()
