"""The figures of a transfer, and the bar that shows them."""

import io

import pytest

from sdpx.peer.transfer.meter import Meter
from sdpx.peer.transfer.progress import Bar


def test_speed_is_that_of_the_last_seconds() -> None:
    meter = Meter()
    meter.begin(3, 1000)
    assert (meter.bytes_per_second, meter.seconds_left) == (0.0, None)
    for second in range(20):
        meter.bytes = meter.moved = 10 * second if second < 10 else 90 + 40 * (second - 9)
        meter.sample(float(second))
    assert meter.bytes_per_second == pytest.approx(40)
    assert meter.seconds_left == pytest.approx((1000 - 490) / 40)


def test_bar_shows_bytes_files_speed_time_left_and_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TERM", "dumb")
    meter, out = Meter(), io.StringIO()
    meter.begin(4, 200_000_000)
    meter.sample(0)
    meter.bytes, meter.moved, meter.files = 50_000_000, 50_000_000, 1
    meter.sample(2)
    bar = Bar(out)
    bar.draw(meter, "relayed")
    bar.stop(meter, "relayed")
    for text in ("50.0/200.0 MB", "1/4 files", "25.0 MB/s", "0:06 left", "relayed"):
        assert text in out.getvalue()
