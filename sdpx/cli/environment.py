"""Environment variables that begin with `SDPX_` and set no option: those of Kubernetes, and misspelt ones. Pure."""

import re
from collections.abc import Iterator, MutableMapping
from typing import Final

from sdpx.cli.options import COMMANDS, command_options
from sdpx.options import did_you_mean

# A Service named sdpx, or sdpx-..., puts these into every pod of its namespace; some have the name of an option.
_SERVICE_NAME: Final = re.compile(r"SDPX_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_PORT: Final = re.compile(r"(tcp|udp|sctp)://")
_OTHER_NAMES: Final = {"SDPX_VENV"}  # of the Justfile


def ignore_unknown(environment: MutableMapping[str, str]) -> Iterator[str]:
    """Remove the variables that are not for sdpx from `environment`; yields a sentence about them for each reason."""
    names = sorted(name for name in environment if name.startswith("SDPX_"))
    if not names:
        return
    known = {each.env for command in COMMANDS for each in command_options(command) if each.env} | _OTHER_NAMES
    of_services = []
    for name in names:
        if _SERVICE_NAME.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_PORT.match(environment[name])):
            of_services.append(name)
            del environment[name]
        elif name not in known:
            shown = ascii(name)[1:-1]
            yield f"the environment variable {shown} is ignored: it sets no option{did_you_mean(name, known)}"
    if of_services:
        yield (
            f"the environment variables {', '.join(of_services)} are ignored: Kubernetes sets them for a Service; "
            "enableServiceLinks: false turns them off"
        )
