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
        ("serv", "no such command: serv; did you mean serve?"),
        ("token", "--sub is required"),
    ],
)  # fmt: skip
def test_usage_error_is_one_line_with_the_nearest_word(
    arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second line names the help of the command."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    command = "" if line.startswith("no such command") else f" {arguments.split(maxsplit=1)[0]}"
    assert capsys.readouterr().err == f"sdpx: {line}\nTry 'sdpx{command} --help'.\n"
