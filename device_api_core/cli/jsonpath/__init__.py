"""The JSONPath dialect of kubectl: ``{range .items[*]}{.metadata.name}{"\\n"}{end}``.

It is no JSONPath of the RFC: text stands between braces, ``range`` repeats, and what is missing is
empty. Checked against kubectl 1.32. Other than there, a template that cannot mean anything is an
error instead of an empty output: an unclosed ``range``, two expressions in one pair of braces, a
stray character in a name. And a quoted key may contain dots: ``['example.com/zone']``.
"""

from device_api_core.cli.jsonpath.complaint import BadTemplate
from device_api_core.cli.jsonpath.nodes import JsonPathError, Path, Template, as_text
from device_api_core.cli.jsonpath.parser import parse_path, parse_template

__all__ = [
    "BadTemplate",
    "JsonPathError",
    "Path",
    "Template",
    "as_text",
    "parse_path",
    "parse_template",
]
