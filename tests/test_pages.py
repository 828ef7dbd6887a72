"""What a reader meets first is true: commands of the pages exist, and links lead somewhere."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from physfed_ray.cli.parser import make_parser

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "cluster").rglob("*.md")]
)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = sum(bool(re.fullmatch(re.escape(slug) + r"(-\d+)?", other)) for other in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


def shell_lines(page: Path) -> list[str]:
    """Return the lines of a page's blocks of commands, continued lines in one."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    shell = [block for language, block in blocks if language in ("", "bash", "sh")]
    return [line for block in shell for line in re.sub(r"\\\n\s*", "", block).splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_are_valid_command_lines(page: Path) -> None:
    for line in shell_lines(page):
        if line.startswith("physfed ") and "..." not in line:
            make_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_the_readme_has_commands() -> None:
    assert sum(line.startswith("physfed ") for line in shell_lines(ROOT / "README.md")) > 5


def test_the_readme_is_an_introduction() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 200, "reference belongs in docs/"
    listed = (ROOT / "docs" / "README.md").read_text()
    missing = [
        page.name for page in (ROOT / "docs").glob("*.md")
        if page.name != "README.md" and f"({page.name})" not in listed
    ]  # fmt: skip
    assert missing == [], "add them to docs/README.md"
