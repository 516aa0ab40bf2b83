# The front door. Every recipe makes and reuses a virtual environment by itself.
# Set SDPX_VENV to keep it elsewhere than in .venv.

venv := env("SDPX_VENV", ".venv")
bin := venv / "bin"

# List the recipes.
default:
    @just --list

# Watch a handshake happen: a relay and two peers pair, connect and talk.
demo *args: _venv
    {{bin}}/sdpx demo {{args}}

# Run the relay.
serve *args: _venv
    {{bin}}/sdpx serve {{args}}

# Run a peer.
peer *args: _venv
    {{bin}}/sdpx peer {{args}}

# Everything that has to hold: lint, types, walls and tests.
test *args: lint types
    {{bin}}/python -m pytest -n 4 --dist worksteal {{args}}

# Style and the import walls.
lint: _venv
    {{bin}}/ruff check
    {{bin}}/ruff format --check

# mypy, strict.
types: _venv
    {{bin}}/python -m mypy

# Thousands of short sessions with random faults against a real relay: nothing lost, nothing leaked.
soak *args: _venv
    {{bin}}/python -m tests.soak {{args}}

# `sdpx serve`, with and without its fast lane, beside the founding design's literal server.
bench *args: _venv
    {{bin}}/python -m tests.bench {{args}}

# Install the browsers and the other WebRTC stacks that tests/interop meets: apt, npm.
setup-interop:
    sh tests/interop/setup.sh

# `sdpx peer` and the other stacks, again and again: how often each meeting came off.
interop *args: _venv
    {{bin}}/python -m tests.interop {{args}}

# All that CI does.
check: setup-interop test

# Make the virtual environment, or bring it up to date when pyproject.toml is newer.
_venv:
    #!/usr/bin/env sh
    set -eu
    stamp={{venv}}/.sdpx-installed
    if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        [ -x {{bin}}/python ] || python3 -m venv {{venv}}
        {{bin}}/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
        touch "$stamp"
    fi
