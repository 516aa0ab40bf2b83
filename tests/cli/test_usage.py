"""Usage errors: one line that names the problem and the nearest right word."""

import pytest

from sdpx.cli.app import main


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("peer bob x y", "unexpected argument: x y"),
        (
            "peer --expect chanel",
            "--expect: 'chanel' is not one of exchange, connected, channel, message; did you mean channel?",
        ),
        ("peer --timeout soon", "--timeout: 'soon' is not a number"),
        ("peer --pair", "--pair needs a value"),
        ("serve --port abc", "--port: 'abc' is not a whole number"),
        ("serve --prot 1", "no such option: --prot; did you mean --port?"),
        ("doctor --url ws://h", "no such option: --url; it is an argument: sdpx doctor URL"),
        ("serv", "no such command: serv; did you mean serve?"),
        ("token", "--sub is required"),
        ("bench --payload 7", "--payload: 7 is not from 128 to 1048576"),
        ("demo", "--timeout (SDPX_TIMEOUT): 'x' is not a number"),
    ],
)  # fmt: skip
def test_usage_error_is_one_line_with_the_nearest_word(
    arguments: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second line names the help of the command; the environment variable that set the value is named, too."""
    if "SDPX_TIMEOUT" in line:
        monkeypatch.setenv("SDPX_TIMEOUT", "x")
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    command = "" if line.startswith("no such command") else f" {arguments.split(maxsplit=1)[0]}"
    assert capsys.readouterr().err == f"sdpx: {line}\nTry 'sdpx{command} --help'.\n"
