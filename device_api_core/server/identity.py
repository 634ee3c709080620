"""Who writes: the provider id that a connection vouches for.

A request only claims a provider id. Where the way it came says more, the two must match: a client
certificate names its holder, and a socket may belong to one provider. The providers' shared socket
says only that the caller runs as its owner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

from device_api_core.errors import PermissionDenied
from device_api_core.reservations import Authority
from device_api_core.resources import Condition
from device_api_core.server.transport import CALLER, Unary

_MAX_NAMES_SHOWN = 4


class ByCertificate:
    """The authority of TLS: a caller writes only as a name in its certificate."""

    def __init__(self, inner: Authority) -> None:
        self._inner = inner

    def check(self, provider_id: str, conditions: Iterable[Condition]) -> None:
        """See :class:`Authority`."""
        if not provider_id or provider_id not in CALLER.get():
            raise PermissionDenied(
                f"the client certificate is of {_shown(CALLER.get())}: it may not write as "
                f"provider {provider_id or '(anonymous)'}"
            )
        self._inner.check(provider_id, conditions)


class OwnSocket:
    """The authority of a socket that belongs to one remote provider."""

    def __init__(self, provider_id: str, inner: Authority) -> None:
        self._provider_id = provider_id
        self._inner = inner

    def check(self, provider_id: str, conditions: Iterable[Condition]) -> None:
        """See :class:`Authority`."""
        if provider_id != self._provider_id:
            raise PermissionDenied(
                f"this socket belongs to provider {self._provider_id}: "
                f"{provider_id or '(anonymous)'} may not write through it"
            )
        self._inner.check(provider_id, conditions)


class SharedSocket:
    """The authority of the socket that providers share: not for ``elsewhere``, who have sockets of
    their own; with ``forbid_anonymous`` not for who gives no id."""

    def __init__(
        self, inner: Authority, *, elsewhere: Collection[str], forbid_anonymous: bool
    ) -> None:
        self._inner = inner
        self._elsewhere = frozenset(elsewhere)
        self._forbid_anonymous = forbid_anonymous

    def check(self, provider_id: str, conditions: Iterable[Condition]) -> None:
        """See :class:`Authority`."""
        if provider_id in self._elsewhere:
            raise PermissionDenied(
                f"provider {provider_id} has a socket of its own (--dedicated-socket): use that one"
            )
        if self._forbid_anonymous and not provider_id:
            raise PermissionDenied(
                "provider_id must not be empty: this server forbids anonymous writers"
            )
        self._inner.check(provider_id, conditions)


def for_operators(admin: Iterable[Unary], names: Collection[str]) -> tuple[Unary, ...]:
    """The admin's methods, for callers whose certificate has one of the names."""
    allowed = frozenset(names)

    def guarded(call: Callable[[bytes], Awaitable[bytes]]) -> Callable[[bytes], Awaitable[bytes]]:
        async def checked(data: bytes) -> bytes:
            if allowed.isdisjoint(CALLER.get()):
                raise PermissionDenied(
                    f"the client certificate is of {_shown(CALLER.get())}, which is no operator "
                    "(--tls-operator-name)"
                )
            return await call(data)

        return checked

    return tuple(m._replace(call=guarded(m.call)) for m in admin)


def _shown(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)[:_MAX_NAMES_SHOWN]) or "nobody"
