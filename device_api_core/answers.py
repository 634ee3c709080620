"""Answers that are known already.

A read whose answer is known need not be asked again, and a transport may give it without calling
anybody. Every table is emptied, in the same step, with whatever could make one of its answers
untrue: a change, a held update, the end of readiness.
"""

from __future__ import annotations

_MOST = 2_048
_LONGEST_REQUEST_BYTES = 256
"""A request may say the same in endless ways; those are not kept."""


class KnownAnswers:
    """Tables of answers by request, one for each method that has some."""

    def __init__(self) -> None:
        self._tables: list[dict[bytes, bytes]] = []

    def table(self) -> dict[bytes, bytes]:
        """One more table. It is only ever filled by :meth:`note`, and always the same object."""
        table: dict[bytes, bytes] = {}
        self._tables.append(table)
        return table

    def note(self, table: dict[bytes, bytes], request: bytes, answer: bytes) -> None:
        """Remember an answer that is true now."""
        if len(request) > _LONGEST_REQUEST_BYTES:
            return
        if len(table) >= _MOST:
            table.clear()
        table[request] = answer

    def forget(self) -> None:
        """Any answer may be untrue from now on."""
        for table in self._tables:
            if table:
                table.clear()
