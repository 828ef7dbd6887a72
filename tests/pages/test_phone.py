"""Pages on a narrow screen: nothing is squeezed to letters, and figures open large."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from physfed_ray.pages.run_page import write_run_page
from tests.pages.run_directories import PutRun

PAGES = Path(__file__).parents[2] / "physfed_ray" / "pages"
VOID = {"img", "meta", "br", "link", "input"}


class Reader(HTMLParser):
    """Notes tables with what they are in, images with their link, ids, links and words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[tuple[str, bool]] = []
        self.images: list[str | None] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "table":
            scrolls = any(a.get("class") == "scroll" for _, a in self.open)
            self.tables.append((str(given.get("class") or ""), scrolls))
        if tag == "img":
            self.images.append(next((a.get("href") for t, a in self.open[::-1] if t == "a"), None))
        if tag == "a":
            self.links.append(str(given.get("href")))
        if tag not in VOID:
            self.open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        """Leave a tag."""
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Note words."""
        if not any(tag in ("style", "script") for tag, _ in self.open):
            self.words += data


@pytest.fixture(scope="module")
def read(put_run: PutRun, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    reader = Reader()
    run = put_run(tmp_path_factory.mktemp("phone") / "run")
    reader.feed(Path(write_run_page(run)).read_text())
    return reader


def test_every_table_scrolls_or_stacks(read: Reader) -> None:
    assert read.tables
    assert [kind for kind, scrolls in read.tables if not scrolls and kind != "words"] == []


def test_every_figure_opens_large_and_closes_where_it_was(read: Reader) -> None:
    assert read.images
    for link in read.images:
        assert link is not None
        assert link.startswith("#")
        assert link[1:] in read.ids
        assert link.removesuffix("-large") in read.links
    inside = [link[1:] for link in read.links if link.startswith("#")]
    assert set(inside) <= read.ids


def test_small_counts_are_given_plainly(read: Reader) -> None:
    assert "1.85 million" in read.words
    assert "910,000 private to each client" in read.words
    assert not re.search(r"\b0\.00 million", read.words)


def test_what_was_read_is_in_words(read: Reader) -> None:
    assert "Left out: localizer" in read.words
    assert "source.left_out" not in read.words


def test_no_value_may_break_between_any_two_letters() -> None:
    """``anywhere`` lets a column shrink to one letter; headings and texts alone may have it."""
    for file in PAGES.glob("*.[hc][ts][ms]*"):
        for rule in re.findall(
            r"([^{}]+)\{([^{}]*overflow-wrap: anywhere[^{}]*)\}", file.read_text()
        ):
            selectors = {part.strip().split("\n")[-1] for part in rule[0].split(",")}
            assert not [s for s in selectors if re.search(r"\b(td|th|table)\b", s)], (file, rule)
    assert "@media (max-width: 600px)" in (PAGES / "report.html").read_text()
