"""The engine's own view of libnghttp2's binary interface, held against the library's header."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

VIEW = Path(__file__).parents[1] / "src" / "nghttp2_abi.h"
HEADER = Path("/usr/include/nghttp2/nghttp2.h")
BLOCK = re.compile(r"^(?:typedef (?:struct|union)|enum) \{\n(.*?)^\} ?(\w*);\n", re.DOTALL | re.M)

pytestmark = pytest.mark.skipif(
    not HEADER.exists() and not os.environ.get("CI"),
    reason="nghttp2.h is missing: apt install libnghttp2-dev",
)


def layout(view: str) -> str:
    """C that compiles if every constant, size and offset is the header's."""
    ours = view.replace("nghttp2_", "our_").replace("NGHTTP2_", "OUR_")
    lines = ["#include <nghttp2/nghttp2.h>", ours]
    for body, name in BLOCK.findall(view):
        if not name:
            constants = re.findall(r"^ *NGHTTP2_(\w+) =", body, re.M)
            assert constants
            lines += [f'_Static_assert((int)OUR_{c} == (int)NGHTTP2_{c}, "");' for c in constants]
        elif name.startswith("nghttp2_"):
            lines += type_checks(body, name)
    return "\n".join(lines)


def type_checks(body: str, name: str) -> list[str]:
    ours = name.replace("nghttp2_", "our_")
    members = re.findall(r"(\w+);", body)
    assert members
    checks = [f"offsetof({ours}, {m}) == offsetof({name}, {m})" for m in members]
    if name != "nghttp2_frame":  # only its first members are known here
        checks += [f"sizeof((({ours} *)0)->{m}) == sizeof((({name} *)0)->{m})" for m in members]
        checks.append(f"sizeof({ours}) == sizeof({name})")
    return [f'_Static_assert({check}, "{name}");' for check in checks]


def prototypes(view: str) -> str:
    """C that compiles if every function and callback has the header's type. A typedef may be
    repeated in C only with the same meaning."""
    known = HEADER.read_text(encoding="utf-8")
    missing = {
        name
        for name in re.findall(r"^  X\([^,]+, (\w+),", view, re.M)
        if f"nghttp2_{name}(" not in known
    }
    # Those that are newer than some systems' library.
    assert missing <= {"option_set_stream_reset_rate_limit", "option_set_max_continuations"}
    lines = ["#include <nghttp2/nghttp2.h>", BLOCK.sub("", view)]
    lines += [f"#define nghttp2_{name} 0" for name in missing]
    lines += [
        "#define CHECK(result, name, parameters) result(*check_##name) parameters =\\\n"
        "nghttp2_##name;",
        "NGHTTP2_FUNCTIONS(CHECK)",
        "NGHTTP2_OPTIONAL_FUNCTIONS(CHECK)",
        "nghttp2_on_frame_recv_callback *frame_recv = (nghttp2_on_frame_callback *)0;",
        "nghttp2_on_frame_send_callback *frame_send = (nghttp2_on_frame_callback *)0;",
    ]
    return "\n".join(lines)


def compiles(code: str, folder: Path) -> str:
    """What the compiler complains of."""
    source = folder / "check.c"
    source.write_text(code, encoding="utf-8")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-c"]
    done = subprocess.run(
        [*command, str(source), "-o", str(folder / "check.o")],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.mark.parametrize("check", [layout, prototypes], ids=lambda check: check.__name__)
def test_the_view_is_the_headers(check, tmp_path):
    assert compiles(check(VIEW.read_text(encoding="utf-8")), tmp_path) == ""


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (layout, "NGHTTP2_ERR_DEFERRED = -508", "NGHTTP2_ERR_DEFERRED = -507"),
        (layout, "  uint8_t type;\n  uint8_t flags;\n", "  uint8_t flags;\n  uint8_t type;\n"),
        (layout, "  size_t valuelen;\n", "  uint32_t valuelen;\n"),
        (layout, "  nghttp2_frame_hd hd;\n  uint32_t", "  nghttp2_frame_hd hd;\n  uint64_t"),
        (prototypes, "X(void, session_del,", "X(int, session_del,"),
        (prototypes, "(nghttp2_session *, int32_t, size_t)", "(nghttp2_session *, int32_t, int)"),
        (prototypes, "uint8_t, int32_t,\n", "uint8_t, int64_t,\n"),
        (prototypes, "const nghttp2_frame *, void *);", "nghttp2_frame *, void *);"),
    ],
)
def test_a_view_that_differs_is_found(check, old, new, tmp_path):
    view = VIEW.read_text(encoding="utf-8")
    assert old in view
    assert "error:" in compiles(check(view.replace(old, new)), tmp_path)
