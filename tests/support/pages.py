"""What pages tell people to type, and what they say will be printed.

A block of bash, console or Python has a mark in the line above it, which readers do not see:

``<!-- run -->``
    It is run. What a console block shows is compared. What a comma-separated list adds:
    ``without PROGRAM``, lines that begin with that program are left out; ``exits N``, it ends with
    that code; ``to the end``, it goes on until the page ends.
``<!-- tested by: PATH -->``
    A test elsewhere runs it.
``<!-- not run: REASON -->``
    Nobody does.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("bash", "console", "python")

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (run|tested by|not run)(?:: (.+))? -->\Z")

# What differs between two runs. A number that belongs to a word, as in Xid79, does not.
_VARIES = {
    "uuid": r"[0-9a-fA-F]{8}-[-0-9a-fA-F]{27}",
    "time": r"\d{4}-\d\d-\d\dT[\d:.]+Z",
    "age": r"\b(?:\d+[dhms])+\b",
    "number": r"\b\d+",
    "blank": r"\s+",
}
_PARTS = re.compile(
    "|".join(f"(?P<{name}>{like})" for name, like in _VARIES.items()) + r"|(?P<any>\.\.\.|…)"
)


@dataclass(frozen=True)
class Block:
    """A block of a page, with its mark."""

    page: Path
    line: int
    language: str
    text: str
    verdict: str
    rest: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def options(self) -> list[str]:
        return [each.strip() for each in self.rest.split(",") if each.strip()]

    def option(self, name: str) -> list[str]:
        """What follows an option's name, each time that it is given."""
        return [each.removeprefix(f"{name} ") for each in self.options if each.startswith(name)]

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """What is typed, and the lines that it is to print."""
        left_out = tuple(f"{program} " for program in self.option("without"))
        if self.language != "console":
            lines = self.text.replace("\\\n", "\\\0").splitlines()
            kept = [line for line in lines if not f"{line} ".startswith(left_out or "\0")]
            return [("\n".join(kept).replace("\\\0", "\\\n"), [])]
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
        return [each for each in found if not f"{each[0]} ".startswith(left_out or "\0")]


def blocks(page: Path) -> list[Block]:
    """Every block that a reader might type; the verdict of one without a mark is empty."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        indent, language, inside = block.groups()
        if language not in LANGUAGES:
            continue
        above = text[: block.start()].rstrip().rpartition("\n")[2].strip()
        mark = _MARK.search(above)
        line = text.count("\n", 0, block.start()) + 1
        verdict, rest = mark.groups(default="") if mark else ("", "")
        found.append(Block(page, line, language, textwrap.dedent(inside), verdict, rest))
    return found


def missing(expected: list[str], output: str) -> str:
    """The first line that was to be printed and was not, in its order; empty if all were."""
    printed = iter(output.splitlines())
    for line in expected:
        if line.strip() in ("", "..."):
            continue
        like = _like(line)
        if not any(like.fullmatch(each.strip()) for each in printed):
            return line
    return ""


def _like(line: str) -> re.Pattern[str]:
    text, parts, end = line.strip(), [], 0
    for part in _PARTS.finditer(text):
        parts += [re.escape(text[end : part.start()]), _VARIES.get(str(part.lastgroup), ".*")]
        end = part.end()
    return re.compile("".join([*parts, re.escape(text[end:])]))
