"""The options of the DCGM provider: the table ``[providers.dcgm]`` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from device_api_core.plugins import InvalidOption

WARNING = "warning"
FAULT = "fault"

_POSITIVE = (
    "interval_seconds",
    "connect_seconds",
    "read_seconds",
    "timeout_seconds",
    "max_body_bytes",
    "failed_scrapes",
    "clean_seconds",
    "rate_seconds",
    "nvlink_errors_per_second",
    "violation_percent",
)


@dataclass(frozen=True, slots=True)
class DcgmOptions:
    """Every field has a default that suits a node with dcgm-exporter beside the daemon. Secrets are
    files, which are read again at each scrape, so that they may be rotated.

    Raises:
        InvalidOption: a value is out of range, or two contradict each other.
    """

    url: str = "http://localhost:9400/metrics"
    """Where the exporter serves its metrics. Without credentials: they have settings of their
    own."""

    interval_seconds: float = 10.0
    """Time between two scrapes. The exporter's own interval is 30 s unless it is told otherwise:
    scraping much faster returns the same values."""

    connect_seconds: float = 2.0
    """The longest a connection may take."""

    read_seconds: float = 5.0
    """The longest silence of the exporter in the middle of an answer."""

    timeout_seconds: float = 8.0
    """The longest a scrape may take in all."""

    max_body_bytes: int = 8 * 1024 * 1024
    """A longer answer is refused."""

    ca_file: str = ""
    """Certificates (PEM) of the authorities that may have signed the exporter's; empty: the usual
    public ones."""

    cert_file: str = ""
    """The provider's own certificate (PEM), for an exporter that asks for one."""

    key_file: str = ""
    """The key of ``cert_file``, if it is not in that file."""

    user: str = ""
    """User name for basic authentication."""

    password_file: str = ""
    """A file with the password of ``user``."""

    bearer_token_file: str = ""
    """A file with a bearer token. Not together with ``user``."""

    register_gpus: bool = True
    """Make GPUs known that no provider has registered. If not, GPUs that nobody knows are passed
    over until somebody registers them."""

    failed_scrapes: int = 3
    """After so many failed scrapes in a row what was True is Unknown; the same for a GPU, or a
    series of a GPU, that is missing from so many good ones."""

    clean_seconds: float = 60.0
    """A fault is over when its evidence of recovery has held for so long."""

    rate_seconds: float = 60.0
    """Rates are taken over this time. Not below the exporter's own interval, or a counter that
    moves in steps looks faster than it is."""

    nvlink_errors_per_second: float = 100.0
    """More errors of one kind on one link are a fault."""

    violation_percent: float = 10.0
    """More of the time slowed down for temperature is a fault, for power a warning."""

    slowdown_margin_celsius: float = -3.0
    """A temperature margin below it is a fault. Hardware slows down at -2 on H100 and -3 on
    B200."""

    row_remap_pending: str = WARNING
    """``warning`` or ``fault``: what a row remap is that waits for a reset."""

    ignored_xids: tuple[int, ...] = ()
    """XIDs that shall have no effect."""

    informational_xids: tuple[int, ...] = ()
    """XIDs that shall only be mentioned in the message."""

    fatal_xids: tuple[int, ...] = ()
    """XIDs that shall be a fault."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InvalidOption(f"option {name!r} must be above zero")
        _check_url(self.url)
        if self.row_remap_pending not in (WARNING, FAULT):
            raise InvalidOption(
                f"option 'row_remap_pending' must be {WARNING!r} or {FAULT!r}, "
                f"not {self.row_remap_pending!r}"
            )
        if bool(self.user) != bool(self.password_file):
            raise InvalidOption("options 'user' and 'password_file' need each other")
        if self.user and self.bearer_token_file:
            raise InvalidOption("options 'user' and 'bearer_token_file' exclude each other")
        if ":" in self.user:
            raise InvalidOption("option 'user' must not contain a colon")
        if self.key_file and not self.cert_file:
            raise InvalidOption("option 'key_file' needs 'cert_file'")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, good = None, False
    if parts is not None and (parts.username is not None or parts.password is not None):
        raise InvalidOption(
            f"option 'url' must not contain credentials ({redacted(url)}): use 'user' and "
            "'password_file', or 'bearer_token_file'"
        )
    if not good or not url.isprintable() or " " in url:
        raise InvalidOption(f"option 'url' must be an http or https URL, not {redacted(url)!r}")


def redacted(url: str) -> str:
    """The URL fit to be shown: without credentials, and without a query, which may hold some."""
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    # Up to the last @: a password may hold any of the characters that would end it.
    _, at, rest = rest.rpartition("@")
    bare, query, _ = rest.partition("?")
    bare = bare.partition("#")[0]
    return f"{scheme}{slashes}{'***@' if at else ''}{bare}{'?***' if query else ''}"
