# Each recipe creates the virtual environment if it is missing, and reuses it.
# Set SDPX_VENV to keep it elsewhere than in .venv.

venv := env("SDPX_VENV", ".venv")
bin := venv / "bin"

# List the recipes.
default:
    @just --list

# Run a complete handshake: a relay and two peers that pair, connect and exchange messages.
demo *args: _venv
    {{bin}}/sdpx demo {{args}}

# Run the relay.
serve *args: _venv
    {{bin}}/sdpx serve {{args}}

# Run a peer.
peer *args: _venv
    {{bin}}/sdpx peer {{args}}

# Lint, types and all tests; tests of other WebRTC stacks are skipped where the stacks are missing.
test *args: lint types
    {{bin}}/python -m pytest -n 4 --dist worksteal {{args}}

# Only the tests without other processes.
test-unit *args: _venv
    {{bin}}/python -m pytest -n 2 --dist worksteal -m "not e2e" {{args}}

# Run the property tests with random seeds, for as long as `--seconds N` says.
fuzz *args: _venv
    {{bin}}/python -m tests.fuzz {{args}}

# Style and import rules.
lint: _venv
    {{bin}}/ruff check
    {{bin}}/ruff format --check

# mypy, strict.
types: _venv
    {{bin}}/python -m mypy

# Write the generated tables of README.md and sdpx/docs.
docs: _venv
    {{bin}}/python -m tests.docs

# Thousands of short sessions with random faults against a real relay: no lost message, no leak.
soak *args: _venv
    {{bin}}/python -m tests.soak {{args}}

# Several nodes and a Redis server under load, restarted, killed and cut off: `just cluster-soak --quick`, or one part by its name.
cluster-soak *args: _venv
    {{bin}}/python -m tests.cluster_soak {{args}}

# Measure the data channel of sdpx beside node-datachannel and aiortc by itself; paths with a delay need root.
bench-data *args: _venv
    {{bin}}/python -m tests.bench.data {{args}}

# Measure `sdpx serve` with each engine, plain and TLS, beside a literal implementation of the original design.
bench *args: _venv
    {{bin}}/python -m tests.bench {{args}}

# What `sdpx pipe`, `send` and `receive` promise, with 1 GiB, 10,000 files, 30 cuts and killed receivers.
transfer *args: _venv
    {{bin}}/python -m tests.transfer {{args}}

# Build one executable file with all subcommands, build/sdpx, and test it.
binary: _venv
    {{bin}}/pyinstaller --onefile --name sdpx --noconfirm --log-level ERROR \
        --collect-submodules sdpx --add-data '{{justfile_directory()}}/sdpx/docs:sdpx/docs' \
        --add-data '{{justfile_directory()}}/sdpx/relay/cluster/scripts:sdpx/relay/cluster/scripts' \
        --add-data '{{justfile_directory()}}/sdpx/relay/web:sdpx/relay/web' \
        --copy-metadata aiortc --copy-metadata aioice --copy-metadata pyOpenSSL \
        --distpath build --workpath build/pyinstaller --specpath build/pyinstaller sdpx/__main__.py
    {{bin}}/python -m pytest -q tests/e2e/test_binary.py

# Install the browsers, servers and other WebRTC stacks that tests meet, with apt, npm and pip.
setup-interop: _venv
    PYTHON={{bin}}/python sh tests/interop/setup.sh

# Connect `sdpx peer` to the other stacks repeatedly and print the success rates.
interop *args: _venv
    {{bin}}/python -m tests.interop {{args}}

# Everything that CI runs.
check: setup-interop binary test

# Create the virtual environment, or update it if pyproject.toml is newer.
_venv:
    #!/usr/bin/env sh
    set -eu
    stamp={{venv}}/.sdpx-installed
    if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        [ -x {{bin}}/python ] || python3 -m venv {{venv}}
        {{bin}}/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
        touch "$stamp"
    fi
