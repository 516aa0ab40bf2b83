"""``python -m sdpx`` is ``sdpx``."""

from sdpx.cli import main

main()
