"""aiortc's own tests of SCTP, of the installed version, against sdpx's transport."""

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from tests.harness.programs import PACKAGES, needs_file

pytestmark = pytest.mark.e2e

ROOT: Final = PACKAGES.parent
SECONDS: Final = 120
# sdpx sends the next message in the same turn as the end of the one before, aiortc with the next SACK.
DIFFERENT: Final = "test_send_data_then_close"


@pytest.mark.long
def test_aiortcs_own_tests_of_sctp_pass(tmp_path: Path) -> None:
    name = f"aiortc-{version('aiortc')}"
    archive = needs_file(f"{name}.tar.gz")
    with tarfile.open(archive) as tar:
        tests = [each for each in tar.getmembers() if each.isfile() and each.name.startswith(f"{name}/tests/")]
        for each in tests:  # the filters of `extractall` came with Python 3.11.4
            content = tar.extractfile(each)
            path = (tmp_path / each.name).resolve()
            assert content is not None
            assert path.is_relative_to(tmp_path.resolve()), each.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    suite = "tests/test_rtcsctptransport.py"
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "aiortc_plugin", "-k", f"not {DIFFERENT}", suite],
        cwd=tmp_path / name,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert process.returncode == 0, process.stdout
    assert (found := re.search(r"(\d+) passed, 1 deselected", process.stdout)), process.stdout
    assert int(found[1]) > 100
