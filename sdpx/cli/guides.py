"""`sdpx docs` and `sdpx recipe`: the documents and the deployment files that the package contains."""

import os
import sys
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from sdpx.cli.options import RECIPES
from sdpx.options import BadOption, did_you_mean

MAX_WIDTH: Final = 100
DOCS: Final = files("sdpx") / "docs"


def topics() -> dict[str, Traversable]:
    """Return the documents by topic: the name of the file without its extension."""
    found = {each.name.removesuffix(".md"): each for each in DOCS.iterdir() if each.name.endswith(".md")}
    return dict(sorted(found.items()))


def show_topic(topic: str) -> None:
    """Write a document to stdout: formatted, through a pager, at a terminal; as Markdown elsewhere.

    Raises `BadOption` for an unknown topic.
    """
    if topic not in topics():
        raise BadOption("TOPIC", f"there is no document '{topic}'{did_you_mean(topic, topics())}")
    text = topics()[topic].read_text("utf-8")
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console  # noqa: PLC0415  only for a terminal
    from rich.markdown import Markdown  # noqa: PLC0415

    os.environ.setdefault("LESS", "-RFX")  # colours; no pager for a document that fits the screen
    console = Console()
    with console.pager(styles=console.color_system is not None):
        console.print(Markdown(text, hyperlinks=False), width=min(console.width, MAX_WIDTH))


def list_topics() -> None:
    """Write the topics and the titles of the documents to stdout."""
    titles = ((name, each.read_text("utf-8").partition("\n")[0].lstrip("# ")) for name, each in topics().items())
    _write_list(titles, "sdpx docs TOPIC")


def show_recipe(name: str) -> None:
    """Write the file of a recipe to stdout."""
    sys.stdout.write((DOCS / RECIPES[name][0]).read_text("utf-8"))


def list_recipes() -> None:
    """Write the names of the recipes to stdout, each with its purpose."""
    _write_list(((name, purpose) for name, (_, purpose) in RECIPES.items()), "sdpx recipe NAME")


def _write_list(rows: Iterable[tuple[str, str]], usage: str) -> None:
    for name, meaning in rows:
        sys.stdout.write(f"{name:<14}{meaning}\n")
    if sys.stdout.isatty():
        sys.stdout.write(f"\nShow one: {usage}\n")
