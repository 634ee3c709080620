"""From the text of a template to its parts, with errors that point at the place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from device_api_core.cli.jsonpath.complaint import BadTemplate
from device_api_core.cli.jsonpath.nodes import (
    OPERATORS,
    Descent,
    Field,
    Filter,
    Index,
    Literal,
    Path,
    Range,
    Show,
    Slice,
    Step,
    Template,
    Text,
    Union,
    Wildcard,
)

_SPACE = re.compile(r"[ \t]*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_NAME = re.compile(r"(?:[\w/:-]|\\.)+")
_NUMBER = re.compile(r"[+-]?\d{1,40}(?:\.\d+)?(?![\w.])")  # int() refuses thousands of digits
_SLICE = re.compile(r"(-?\d{1,40})?(?::(-?\d{1,40})?)?(?::(-?\d{1,40})?)?")
_OPERATOR = re.compile(r"[!<>=~&|]+")
_QUOTED = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\"""")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{3}|.)")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPES |= {mark: mark for mark in "\\'\""}
_KEPT = re.compile(r"\\(.)")
_QUOTES = ("'", '"')
_BARE = re.compile(r"[^{]+")
_MAX_DEPTH = 32


def parse_template(text: str) -> Template:
    """A whole template. Raises BadTemplate."""
    return _Parser(text).template()


def parse_path(text: str) -> Path:
    """One path, as ``--sort-by`` and custom columns take it: ``{.metadata.name}``, or without the
    braces, or without the dot. Raises BadTemplate."""
    return _Parser(text).lone_path()


@dataclass(slots=True)
class _Open:
    """A range whose end has not come yet."""

    at: int
    path: Path
    parts: list[Text | Show | Range] = field(default_factory=list)


class _Parser:
    """Reads from left to right; ``_at`` is where it is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._filters = 0

    # --- the template

    def template(self) -> Template:
        root = _Open(0, Path(()))
        ranges = [root]
        while self._at < len(self._text):
            if (bare := self._match(_BARE)) is not None:
                ranges[-1].parts.append(Text(bare))
            else:
                self._action(ranges)
        if len(ranges) > 1:
            raise self._wrong("this {range} has no {end}", ranges[-1].at)
        return Template(tuple(root.parts))

    def _action(self, ranges: list[_Open]) -> None:
        opened = self._at
        self._expect("{", "")
        self._skip()
        word_at = self._at
        word = self._match(_WORD)
        if word == "range":
            self._skip()
            self._limit(len(ranges), opened)
            ranges.append(_Open(opened, self._path()))
        elif word == "end":
            if len(ranges) == 1:
                raise self._wrong("this {end} has no {range}", opened)
            done = ranges.pop()
            ranges[-1].parts.append(Range(done.path, tuple(done.parts)))
        else:
            self._at = word_at
            ranges[-1].parts.append(Show(Path(()) if self._peek() == "}" else self._operand()))
        self._close(opened)

    def _close(self, opened: int) -> None:
        self._skip()
        if self._ended():
            raise self._wrong('this "{" is not closed by a "}"', opened)
        self._expect("}", 'here a "}" should end the expression')

    def lone_path(self) -> Path:
        self._skip()
        braced = self._take("{")
        self._skip()
        first = self._peek()
        # The dot before the first name may be left out.
        path = self._relaxed() if first and first not in ".[@$}" else self._path()
        self._skip()
        if braced:
            self._expect("}", 'here a "}" should end the path')
            self._skip()
        if not self._ended():
            raise self._wrong("the path should end here")
        if not path.steps:
            raise self._wrong("the path names nothing", 0)
        return path

    def _relaxed(self) -> Path:
        name = self._name()
        return Path((name, *self._steps()))

    # --- what stands in braces and in filters

    def _operand(self) -> Path:
        if self._peek() in _QUOTES:
            return Path((Literal(self._text_of(self._quoted())),))
        if (number := self._match(_NUMBER)) is not None:
            return Path((Literal(float(number) if "." in number else int(number)),))
        at = self._at
        if (word := self._match(_WORD)) is not None:
            if word not in {"true", "false"}:
                raise self._wrong(f'"{word}" is no path: did you mean ".{word}"?', at)
            return Path((Literal(word == "true"),))
        return self._path()

    def _path(self) -> Path:
        at = self._at
        # "@" and "$" are both the current value, as in kubectl.
        if not self._take("@"):
            self._take("$")
        steps = self._steps()
        if self._at == at:
            raise self._wrong("here a path is missing, such as .metadata.name")
        return Path(tuple(steps))

    def _steps(self) -> list[Step]:
        steps: list[Step] = []
        while not self._ended():
            if self._take(".."):
                steps.append(Descent())
                if self._peek() != "[":
                    steps.append(self._name())
            elif self._take("."):
                steps.append(self._name())
            elif self._peek() == "[":
                steps.append(self._bracket())
            else:
                break
        return steps

    def _name(self) -> Field | Wildcard:
        if self._take("*"):
            return Wildcard()
        if (name := self._match(_NAME)) is None:
            raise self._wrong("here the name of a field is missing")
        return Field(_KEPT.sub(r"\1", name))

    def _bracket(self) -> Step:
        opened = self._at
        self._expect("[", "")
        if self._take("?"):
            return self._filter(opened)
        branches = [self._choice()]
        while self._take(","):
            branches.append(self._choice())
        self._end_bracket(opened)
        return branches[0] if len(branches) == 1 else Union(tuple(branches))

    def _choice(self) -> Step:
        self._skip()
        step = self._chosen()
        self._skip()
        return step

    def _chosen(self) -> Step:
        if self._take("*"):
            return Wildcard()
        if self._peek() in _QUOTES:
            return Field(_KEPT.sub(r"\1", self._quoted()[1:-1]))
        at = self._at
        found = _SLICE.match(self._text, at)
        if found is None or not found.group():
            raise self._wrong('here should be an index, a slice, "*" or a quoted key')
        self._at = found.end()
        numbers = [int(group) if group else None for group in found.groups()]
        if ":" in found.group():
            if numbers[2] is not None and numbers[2] < 1:
                raise self._wrong("the step of a slice must be 1 or more", at)
            return Slice(*numbers)
        [position] = numbers[:1]
        assert position is not None
        return Index(position)

    def _filter(self, opened: int) -> Filter:
        self._expect("(", 'a filter is written [?(@.field=="value")]: here "(" is missing')
        self._filters += 1
        self._limit(self._filters, opened)
        self._skip()
        left = self._operand()
        self._skip()
        sign_at = self._at
        sign = self._match(_OPERATOR)
        right = self._right(sign, sign_at) if sign is not None else None
        if right is not None and self._match(_OPERATOR) is not None:
            raise self._wrong("a filter makes one comparison; && and || are not known")
        self._expect(")", 'here a ")" should end the filter')
        self._filters -= 1
        self._end_bracket(opened)
        return Filter(left, sign or "", right)

    def _right(self, sign: str, at: int) -> Path:
        if sign not in OPERATORS:
            known = " ".join(OPERATORS)
            raise self._wrong(f"{sign} is no operator of a filter; those are {known}", at)
        self._skip()
        right = self._operand()
        self._skip()
        return right

    def _end_bracket(self, opened: int) -> None:
        if self._ended():
            raise self._wrong('this "[" is not closed by a "]"', opened)
        self._expect("]", 'here a "]" should end what "[" began')

    def _quoted(self) -> str:
        if (quoted := self._match(_QUOTED)) is None:
            raise self._wrong("this quoted text does not end")
        return quoted

    def _text_of(self, quoted: str) -> str:
        def unescaped(found: re.Match[str]) -> str:
            if (meant := _meant(found[1])) is None:
                at = self._at - len(quoted) + 1 + found.start()
                raise self._wrong(f"{found[0]} is no escape", at)
            return meant

        return _ESCAPE.sub(unescaped, quoted[1:-1])

    # --- characters

    def _ended(self) -> bool:
        return self._at >= len(self._text)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, what: str) -> bool:
        if not self._text.startswith(what, self._at):
            return False
        self._at += len(what)
        return True

    def _expect(self, what: str, why: str) -> None:
        if not self._take(what):
            raise self._wrong(why)

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        if (found := pattern.match(self._text, self._at)) is None:
            return None
        self._at = found.end()
        return found.group()

    def _skip(self) -> None:
        self._match(_SPACE)

    def _limit(self, depth: int, at: int) -> None:
        if depth > _MAX_DEPTH:
            raise self._wrong(f"more than {_MAX_DEPTH} are nested", at)

    def _wrong(self, why: str, at: int | None = None) -> BadTemplate:
        return BadTemplate(why, self._text, self._at if at is None else at)


def _meant(code: str) -> str | None:
    """The character that an escape stands for, without its backslash."""
    if len(code) == 1:
        return _ESCAPES.get(code)
    character = chr(int(code, 8) if code[0].isdigit() else int(code[1:], 16))
    # Half of a surrogate pair is no character.
    return None if "\ud800" <= character <= "\udfff" else character
