"""`sdpx docs` and `sdpx recipe` write what the package contains."""

import pytest

from sdpx.cli import guides
from sdpx.cli.app import main
from sdpx.cli.options import RECIPES


def written(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == status
    out, err = capsys.readouterr()
    return err if status else out


def test_documents_are_listed_with_their_titles(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(capsys, "docs").splitlines()
    assert len(lines) == len(guides.topics())
    assert "operating     Operating a relay" in lines


def test_document_is_written_as_markdown_where_stdout_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = written(capsys, "docs", "operating")
    assert text == guides.topics()["operating"].read_text("utf-8")


def test_unknown_document_is_a_usage_error_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    error = written(capsys, "docs", "protocl", status=2)
    assert error.splitlines()[0] == "sdpx: TOPIC: there is no document 'protocl'; did you mean protocol?"


def test_every_recipe_is_listed_and_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split()[0] for line in written(capsys, "recipe").splitlines()] == list(RECIPES)
    for name, (file, _) in RECIPES.items():
        assert written(capsys, "recipe", name) == (guides.DOCS / file).read_text("utf-8")


def test_unknown_recipe_is_a_usage_error_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "NAME: 'nginxx' is not one of" in (error := written(capsys, "recipe", "nginxx", status=2))
    assert "did you mean nginx?" in error
