"""The one executable file that `just binary` builds, run in an empty folder without Python on the path."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.docs.generate import ROOT

pytestmark = pytest.mark.e2e
Run = Callable[..., str]
BINARY = ROOT / "build" / "sdpx"


def newest_source() -> float:
    return max(path.stat().st_mtime for path in (ROOT / "sdpx").rglob("*") if path.is_file() and path.suffix != ".pyc")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the binary with arguments; returns its stdout."""
    if not BINARY.exists() or BINARY.stat().st_mtime < newest_source():
        pytest.skip("build/sdpx is missing or older than the code: `just binary` builds it")

    def run(*arguments: str, status: int = 0) -> str:
        command = [str(BINARY), *arguments]
        settings = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": "/nowhere"}
        done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, timeout=120, check=False)
        assert done.returncode == status, done.stderr.decode()
        return done.stdout.decode()

    return run


def events(output: str) -> list[str]:
    return [json.loads(line)["event"] for line in output.splitlines()]


def test_demo_runs_relay_and_peers_from_the_file(run: Run) -> None:
    assert events(run("demo"))[-1] == "demo_finished"


def test_peer_reports_a_relay_that_is_not_there(run: Run) -> None:
    assert events(run("peer", "--url", "ws://127.0.0.1:9", "--no-reconnect", status=3))[-1] == "error"


def test_relay_checks_its_options(run: Run) -> None:
    assert "port = 8800" in run("serve", "--port", "8800", "--check", "--print-config")


def test_load_processes_of_the_measurement_run_from_the_file(run: Run) -> None:
    assert json.loads(run("bench", "--pairs", "2", "--seconds", "0.2", "--format", "json"))["error"] is None


def test_documents_and_recipes_are_in_the_file(run: Run) -> None:
    assert run("docs", "protocol").startswith("# Wire protocol")
    assert json.loads(run("recipe", "grafana"))["panels"]
    assert run("--version").startswith("sdpx ")


def test_files_of_page_and_cluster_are_in_the_file(run: Run) -> None:
    assert "page" in run("serve", "--port", "8800", "--check", "--print-config")
    with subprocess.Popen([str(BINARY), "serve", "--port", "0"], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            port = json.loads(server.stdout.readline())["port"]
            page = httpx.get(f"http://127.0.0.1:{port}/", headers={"Accept": "text/html"})
            assert page.status_code == 200
        finally:
            server.terminate()
