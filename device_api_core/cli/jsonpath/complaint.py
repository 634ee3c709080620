"""What is wrong with a template, and where."""

from __future__ import annotations


class BadTemplate(Exception):
    """A template cannot be parsed. ``position`` is the offset of what is wrong in ``text``."""

    def __init__(self, why: str, text: str, position: int) -> None:
        super().__init__(why)
        self.why = why
        self.text = text
        self.position = position

    def __str__(self) -> str:
        # The line it is on, and a mark below the place.
        start = self.text.rfind("\n", 0, self.position) + 1
        line = self.text[start:].partition("\n")[0]
        return f"{self.why}\n  {line}\n  {' ' * (self.position - start)}^"
