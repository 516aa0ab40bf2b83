"""How the property tests run: by their examples, not by the clock of a machine that may be busy."""

from hypothesis import settings

settings.register_profile("sdpx", settings.default, deadline=None)
settings.load_profile("sdpx")
