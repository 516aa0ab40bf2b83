#!/bin/sh
# Install what the tests meet: browsers, GStreamer, coturn, Redis, proxies and the tools of operators with apt, packages
# for Node with npm and the source of aiortc, whose own tests of SCTP are run, with pip, into .interop/.
# Existing installations are left alone, so that a second run needs neither root nor a network.
set -eu
cd "$(dirname "$0")/../.."

missing() { # the Debian packages, of those named, that are not installed
    for package in "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || printf '%s ' "$package"
    done
}

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    set -- python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-bad-1.0 gir1.2-soup-3.0 \
        gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice
    command -v chromium >/dev/null || set -- "$@" chromium
    command -v firefox-esr >/dev/null || command -v firefox >/dev/null || set -- "$@" firefox-esr
    command -v turnserver >/dev/null || set -- "$@" coturn
    command -v redis-server >/dev/null || set -- "$@" redis-server
    command -v node >/dev/null || set -- "$@" nodejs
    command -v npm >/dev/null || set -- "$@" npm
    command -v nginx >/dev/null || set -- "$@" nginx-light
    command -v caddy >/dev/null || set -- "$@" caddy
    command -v iptables >/dev/null || set -- "$@" iptables
    command -v ip >/dev/null || set -- "$@" iproute2
    command -v systemd-analyze >/dev/null || set -- "$@" systemd
    command -v promtool >/dev/null || set -- "$@" prometheus
    wanted=$(missing "$@")
    if [ -n "$wanted" ]; then
        if [ "$(id -u)" = 0 ]; then root=; elif command -v sudo >/dev/null; then root=sudo; else
            echo "setup-interop: not root and no sudo; as root, run: apt-get install $wanted" >&2
            exit 1
        fi
        $root apt-get -q update
        # shellcheck disable=SC2086  # a list of packages
        $root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $wanted
    fi
else
    echo "setup-interop: there is no apt here; install what these tests need by hand: Chromium, Firefox, Node 20 with npm," >&2
    echo "and for /usr/bin/python3 the GObject bindings of GStreamer 1.22's webrtcbin, its nice plugin, and libsoup 3" >&2
    command -v npm >/dev/null || exit 1
fi

mkdir -p .interop
if ! cmp -s tests/interop/package-lock.json .interop/installed; then
    cp tests/interop/package.json tests/interop/package-lock.json .interop/
    (cd .interop && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp tests/interop/package-lock.json .interop/installed
fi
python=${PYTHON:-python3}
version=$("$python" -c 'from importlib.metadata import version; print(version("aiortc"))')
if ! [ -f ".interop/aiortc-$version.tar.gz" ]; then
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary aiortc --dest .interop "aiortc==$version"
fi
echo "setup-interop: done"
