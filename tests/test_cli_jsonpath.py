"""kubectl's JSONPath dialect. What a template yields was taken from kubectl 1.32, run on the same
object (as a Pod) with ``kubectl label --local -o jsonpath=...``."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_api_core.cli.jsonpath import (
    BadTemplate,
    JsonPathError,
    as_text,
    parse_path,
    parse_template,
)

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "labels": {"a": "b", "example.com/zone": "z1", "k.dot": "v"},
        "name": "gpu-a",
        "resourceVersion": "12",
    },
    "spec": {
        "containers": [
            {
                "image": "i0",
                "name": "c0",
                "ports": [{"containerPort": 80}, {"containerPort": 81}],
                "tty": True,
            },
            {"args": ["x", True, "z"], "image": "i1", "name": "c1"},
            {"image": "i2", "name": "c2"},
        ]
    },
    "status": {
        "conditions": [
            {"reason": "Xid79", "status": "False", "type": "Ready"},
            {
                "message": 'it\'s "off"',
                "reason": "Xid79",
                "status": "False",
                "type": "XidHealthy",
            },
            {"status": "True", "type": "FanHealthy"},
        ]
    },
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.metadata.name}", "gpu-a"),
        ("{ .metadata.name }", "gpu-a"),
        ("{$.metadata.name}", "gpu-a"),
        ("{@.metadata.name}", "gpu-a"),
        ("{['metadata']['name']}", "gpu-a"),
        (".metadata.name", ".metadata.name"),
        ("", ""),
        ("{.metadata.name}}", "gpu-a}"),
        ("{.metadata.name}\\n", "gpu-a\\n"),
        ("{.nope}", ""),
        ("{.nope.x}", ""),
        ("{.metadata.name.x}", ""),
        (r"{.metadata.labels.example\.com/zone}", "z1"),
        (r"{.metadata.labels.k\.dot}", "v"),
        (r"{.metadata.labels['example\.com/zone']}", "z1"),
        ("{.spec.containers[*].name}", "c0 c1 c2"),
        ("{.spec.containers[0].name}", "c0"),
        ("{.spec.containers[-1].name}", "c2"),
        ("{.spec.containers[-1:].name}", "c2"),
        ("{.spec.containers[-2:-1].name}", "c1"),
        ("{.spec.containers[0:2].name}", "c0 c1"),
        ("{.spec.containers[1:].name}", "c1 c2"),
        ("{.spec.containers[:2].name}", "c0 c1"),
        ("{.spec.containers[::2].name}", "c0 c2"),
        ("{.spec.containers[2:2].name}", ""),
        ("{.spec.containers[0,2].name}", "c0 c2"),
        ("{.spec.containers[0]['name','image']}", "c0 i0"),
        ("{.spec.containers[*]['name','image']}", "c0 c1 c2 i0 i1 i2"),
        ("{.spec.containers[*].nope}", ""),
        ("{.spec.containers[*].args}", '["x",true,"z"]'),
        ("{.spec.containers[*].args[*]}", "x true z"),
        ("{.spec.containers[*].tty}", "true"),
        ("{.spec.containers[0].ports[0].containerPort}", "80"),
        ("{..name}", "gpu-a c0 c1 c2"),
        ("{.spec..name}", "c0 c1 c2"),
        ("{..ports}", '[{"containerPort":80},{"containerPort":81}]'),
        ('{.status.conditions[?(@.type=="Ready")].status}', "False"),
        ("{.status.conditions[?( @.type == 'Ready' )].status}", "False"),
        ("{.status.conditions[?('Ready'==@.type)].type}", "Ready"),
        ('{.status.conditions[?(@.type!="Ready")].type}', "XidHealthy FanHealthy"),
        ("{.status.conditions[?(@.message)].type}", "XidHealthy"),
        ('{.status.conditions[?(@.reason=="Xid79")].type}', "Ready XidHealthy"),
        ('{.status.conditions[?(@.reason!="Xid79")].type}', ""),
        ("{.status.conditions[*].message}", 'it\'s "off"'),
        (
            '{.status.conditions[?(@.type=="Ready")]}',
            '{"reason":"Xid79","status":"False","type":"Ready"}',
        ),
        ("{.spec.containers[?(@.tty==true)].name}", "c0"),
        ("{.spec.containers[0].ports[?(@.containerPort>80)].containerPort}", "81"),
        ("{.spec.containers[0].ports[?(@.containerPort>=80)].containerPort}", "80 81"),
        (
            r'{range .status.conditions[*]}{.type}{"\t"}{.status}{"\n"}{end}',
            "Ready\tFalse\nXidHealthy\tFalse\nFanHealthy\tTrue\n",
        ),
        (
            "{range .spec.containers[*]}[{.name}:{range .args[*]}{@},{end}]{end}",
            "[c0:][c1:x,true,z,][c2:]",
        ),
        ("{range .spec.containers[?(@.tty)]}{.name}{end}", "c0"),
        ("{range .nope[*]}a{end}b", "b"),
        ("{range .spec.containers}{@.name};{end}", ";"),
        (r"""{'single'}{"dou\"ble"}{'\''}""", "singledou\"ble'"),
        (r'{"\x41\u00e9\101"}', "AéA"),
        ("{5}{true}{-1.5}", "5true-1.5"),
        ("{.metadata.labels}", '{"a":"b","example.com/zone":"z1","k.dot":"v"}'),
    ],
)
def test_a_template_yields_what_kubectl_yields(template, text):
    assert parse_template(template).render(POD) == text


@pytest.mark.parametrize("template", ["{}", "{@}"])
def test_the_whole_object_is_json(template):
    assert json.loads(parse_template(template).render(POD)) == POD


def test_a_quoted_key_may_contain_dots_and_either_quote_will_do():
    for quoted in ("['example.com/zone']", '["example.com/zone"]'):
        assert parse_template("{.metadata.labels" + quoted + "}").render(POD) == "z1"


@pytest.mark.parametrize(
    ("template", "why", "at"),
    [
        ("{.metadata.name", 'this "{" is not closed', 0),
        ("x{end}", "this {end} has no {range}", 1),
        ("a{range .items[*]}b", "this {range} has no {end}", 1),
        ("{range}{end}", "a path is missing", 6),
        ("{.items[}", "should be an index", 8),
        ("{.items[x]}", "should be an index", 8),
        ("{.items[0}", 'a "]" should end', 9),
        ("{.items[0", 'this "[" is not closed', 7),
        ("{.items[0:3:0]}", "the step of a slice must be 1 or more", 8),
        ('{.items[?(@.name="c0")]}', "= is no operator", 16),
        ('{.items[?(@.name=~"c.")]}', "=~ is no operator", 16),
        ('{.items[?(@.a=="b" && @.c=="d")]}', "one comparison", 21),
        ("{.items[?(@.a==)]}", "a path is missing", 15),
        ('{.items[?(@.a=="b"]}', 'a ")" should end the filter', 18),
        ('{.items[?@.a=="b"]}', '"(" is missing', 9),
        ('{"abc}', "does not end", 1),
        (r'{"a\qb"}', r"\q is no escape", 3),
        (r'{"\ud800"}', r"\ud800 is no escape", 2),
        ("{foo}", 'did you mean ".foo"', 1),
        ("{.}", "the name of a field is missing", 2),
        ("{....name}", "the name of a field is missing", 3),
        ("{.metadata name}", 'a "}" should end', 11),
        ("{.a, .b}", 'a "}" should end', 3),
        ("{.a|b}", 'a "}" should end', 3),
        ("{[" + "1" * 5_000 + "]}", 'a "]" should end', 42),
        ("{[?(@.a==" + "1" * 5_000 + ")]}", "a path is missing", 9),
        ("{" + "[?(" * 999, "more than 32 are nested", 97),
        ("{range @}" * 999, "more than 32 are nested", 288),
    ],
)
def test_a_bad_template_says_what_is_wrong_and_where(template, why, at):
    with pytest.raises(BadTemplate) as caught:
        parse_template(template)
    assert why in caught.value.why
    assert caught.value.position == at
    assert str(caught.value).splitlines()[1:] == [f"  {template}", "  " + " " * at + "^"]


def test_the_place_is_marked_in_its_own_line():
    with pytest.raises(BadTemplate) as caught:
        parse_template("{.a}\n  {.b\n{.c}")
    assert str(caught.value).splitlines()[1:] == ["    {.b", "       ^"]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{.spec.containers[7]}", "index 7 is outside of a list of 3"),
        ("{.spec.containers[-4]}", "index -4 is outside of a list of 3"),
        ("{.spec.containers[0:9]}", "index 8 is outside of a list of 3"),
        ("{.spec.containers[2:1]}", "the slice starts at 2, after its end at 1"),
        ("{.metadata.name[0]}", 'the text "gpu-a" is not a list'),
        ("{.metadata[?(@.a)]}", "the object is not a list"),
        ('{.spec.containers[0].ports[?(@.containerPort=="80")]}', "cannot be compared"),
        ("{.spec.containers[?(@.tty>false)]}", "cannot be compared"),
        ('{.spec.containers[?(@.args[*]=="x")]}', "only one value with one other"),
    ],
)
def test_a_template_that_does_not_fit_says_why(template, why):
    with pytest.raises(JsonPathError) as caught:
        parse_template(template).render(POD)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{.metadata.name}", ".metadata.name", "metadata.name", "{metadata.name}"]
)
def test_a_path_may_leave_out_braces_and_the_first_dot(text):
    assert parse_path(text).find(POD) == ["gpu-a"]


@pytest.mark.parametrize("text", ["", "{}", "{.a}{.b}", "{.a", ".a b", ".a}"])
def test_what_is_no_single_path_is_refused(text):
    with pytest.raises(BadTemplate):
        parse_path(text)


KEYS = st.text(min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(KEYS, VALUES)
def test_any_key_can_be_reached(key, value):
    escaped = key.replace("\\", "\\\\").replace("'", "\\'")
    if "\n" not in key:
        assert parse_path(f"['{escaped}']").find({key: value}) == [value]
        dotted = "".join(c if c.isalnum() and c.isascii() else f"\\{c}" for c in key)
        assert parse_path(f".{dotted}").find({key: value}) == [value]


BOUND = st.none() | st.integers(-6, 6)


@given(st.lists(st.integers(), max_size=5), BOUND, BOUND, st.none() | st.integers(1, 3))
def test_a_slice_is_that_of_python_or_an_error(items, first, beyond, step):
    def shown(number):
        return "" if number is None else str(number)

    text = f"[{shown(first)}:{shown(beyond)}:{shown(step)}]"
    try:
        assert parse_path(text).find(items) == items[first:beyond:step]
    except JsonPathError:
        # It is refused only where Python would leave something out without a word.
        ends = [len(items) if beyond is None else beyond, first or 0]
        stop, start = (end + len(items) if end < 0 else end for end in ends)
        assert not 0 <= start <= stop <= len(items) or start == len(items)


@given(
    st.lists(
        st.fixed_dictionaries({}, optional={"t": st.sampled_from("abc"), "n": st.integers(0, 3)})
    )
)
def test_a_filter_keeps_exactly_what_it_names(items):
    assert parse_path('[?(@.t=="a")]').find(items) == [i for i in items if i.get("t") == "a"]
    assert parse_path("[?(@.n<2)]").find(items) == [i for i in items if i.get("n", 9) < 2]
    assert parse_path("[?(@.t)]").find(items) == [i for i in items if "t" in i]


@given(st.lists(VALUES, max_size=5))
def test_a_range_is_its_body_for_each_item(items):
    text = parse_template("{range .items[*]}<{@}>{end}").render({"items": items})
    assert text == "".join(f"<{as_text(item)}>" for item in items)


PIECES = [
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "?",
    "@",
    "$",
    ".",
    "..",
    "*",
    ":",
    ",",
    "'",
    '"',
    "\\",
    "==",
]
PIECES += [
    "<",
    "!",
    "&",
    " ",
    "\n",
    "0",
    "-1",
    "7.5",
    "name",
    "range ",
    "end",
    "true",
    "é",
    "\\u12",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), VALUES)
def test_any_text_is_a_template_or_an_error_with_a_place_in_it(text, value):
    wrong = None
    try:
        template = parse_template(text)
    except BadTemplate as error:
        wrong = error
    if wrong is None:
        with suppress(JsonPathError):
            assert isinstance(template.render(value), str)
    else:
        assert 0 <= wrong.position <= len(text)
        assert str(wrong).startswith(wrong.why)
