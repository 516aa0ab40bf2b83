"""``python -m sdpx`` is ``sdpx``."""

from sdpx.cli.app import main

main()
