"""The protoc plugin: what it accepts, what it refuses and why, and that it repeats itself."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from device_api_codegen import names
from device_api_codegen.plugin import respond
from device_api_codegen.rendering import WIDTH, docstring
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = ROOT / "tools" / "codegen" / "protoc-gen-device-api"
FOLDER = "nvidia/device/v1alpha1"
TOY = (Path(__file__).parent / "nic.proto").read_text(encoding="utf-8")


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "proto" / "nvidia", tmp_path / "nvidia")
    return tmp_path


def request_of(protos: Path, parameter: str = "expansions=gpus", **toys: str):
    """A request for all files, with these toys among them, as protoc sends it."""
    for name, text in toys.items():
        (protos / FOLDER / f"{name}.proto").write_text(text, encoding="utf-8")
    buf = Path(sys.executable).with_name("buf")
    built = subprocess.run(
        [buf, "build", protos, "--as-file-descriptor-set", "-o", "-#format=binpb"],
        check=True, capture_output=True,
    )  # fmt: skip
    files = FileDescriptorSet.FromString(built.stdout).file
    ours = [file.name for file in files if file.name.startswith(FOLDER)]
    return CodeGeneratorRequest(file_to_generate=ours, parameter=parameter, proto_file=files)


def error_of(protos: Path, *changes: tuple[str, str], parameter: str = "expansions=gpus") -> str:
    toy = TOY
    for old, new in changes:
        assert old in toy
        toy = toy.replace(old, new)
    response = respond(request_of(protos, parameter, nic=toy))
    assert not response.file
    return response.error.removeprefix("nvidia.device.v1alpha1.")


# --- what is refused


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("rpc GetNic(", "rpc ReadNic(", "NicService: GetNic is missing"),
        ("rpc ListNics(", "rpc ListNic(", "NicService: ListNics is missing"),
        (
            "rpc GetNic(GetNicRequest) returns (",
            "rpc GetNic(GetNicRequest) returns (stream ",
            "NicService.GetNic: must not stream",
        ),
        ("returns (stream ", "returns (", "NicService.WatchNics: must stream its responses"),
        (
            "rpc WatchNics(",
            "rpc WatchNics(stream ",
            "NicService.WatchNics: must stream its responses, and only these",
        ),
        ("string name = 1;", "string id = 1;", "GetNicRequest: the field name is missing"),
        ("Nic nic = 1;", "NicSpec nic = 1;", "GetNicResponse.nic: must be a "),
        ("Nic nic = 1;", "Nic nic = 1; bool more = 2;", "GetNicResponse: must have exactly one"),
        ("repeated Nic items", "Nic items", "NicList.items: must be repeated"),
        ("repeated Nic items", "repeated Nic all", "NicList: the field items is missing"),
        ("ListMeta metadata", "string metadata", "NicList.metadata: must be a message"),
        ("ListMeta metadata", "NicPort metadata", "NicPort: the field resource_version is missing"),
        ("string driver = 2;", "repeated string driver = 2;", "ListNicsRequest.driver: an option"),
        ("string driver = 2;", "string timeout_seconds = 2;", "ListNicsRequest.timeout_seconds: "),
        ("Nic object = 2;", "string object = 2;", "WatchNicsResponse.object: must be a message"),
        ("ObjectMeta metadata", "NicPort metadata", "Nic.metadata: must be one nvidia."),
        ("NicStatus status = 3;", "NicStatus state = 3;", "Nic: the field status is missing"),
        ("NicStatus status = 3;", "NicStatus status = 3; bool x = 9;", "Nic.x: belongs in spec or"),
        ("bool rdma = 6;", "map<string, string> rdma = 6;", "NicSpec.rdma: a map has no frozen"),
        ("bool rdma = 6;", "oneof way { bool rdma = 6; bool ib = 7; }", "NicSpec.rdma: a oneof "),
        ("bool rdma = 6;", "bool class = 6;", "NicSpec.class: is a word of Python"),
        ("bool rdma = 6;", "enum Mode { OFF = 0; } Mode rdma = 6;", "NicSpec.rdma: an enum has "),
        (
            "bool rdma = 6;",
            "GpuSpec rdma = 6;",
            "NicSpec.rdma: nvidia.device.v1alpha1.Gpu",
        ),
        ("bool rdma = 6;", "message In {} In rdma = 6;", "NicSpec.rdma: nvidia.device.v1alpha1."),
        ("NicSpec spec = 2;", "repeated NicSpec spec = 2;", "Nic.spec: must be one message"),
        ("NicStatus status = 3;", "ObjectMeta status = 3;", "Nic.status: must be one message"),
        ("NicSpec spec = 2;", "Condition spec = 2;", "Nic.spec: must be one message of"),
        (
            "NicStatus status = 3;",
            "NicStatus status = 3; string resource_version = 4;",
            "Nic.resource_version: must be an int64",
        ),
        ("NicModule", "Device", "Device: the name Device is taken"),
        ("Nics", "Nic", "NicService: Nic is its own plural"),
    ],
)
def test_what_does_not_follow_the_pattern_is_named(protos, old, new, error):
    assert error in error_of(protos, (old, new))


def test_two_kinds_cannot_have_one_name(protos):
    other = TOY.replace("v1alpha1;", "v1beta1;", 1)
    for shared in ("ObjectMeta", "ListMeta", "ListOptions", "Condition"):
        other = other.replace(f" {shared} ", f" nvidia.device.v1alpha1.{shared} ")
    response = respond(request_of(protos, nic=TOY, other=other))
    assert f"Nics is already one of {FOLDER}/nic.proto" in response.error


def test_two_groups_cannot_have_one_name(protos):
    other = TOY.replace("nvidia.device.v1alpha1;", "other.v1alpha1;").replace("Nic", "Fan")
    for shared in ("ObjectMeta", "ListMeta", "ListOptions", "Condition"):
        other = other.replace(f" {shared} ", f" nvidia.device.v1alpha1.{shared} ")
    error = respond(request_of(protos, other=other)).error
    assert error.startswith("proto/other/v1alpha1: device_api_core/client/_generated/v1alpha1.py")


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ("expansions=gpus+fans", "fans.py expands no kind"),
        ("speed=9", "unknown parameter speed"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(protos, parameter, error):
    assert error in error_of(protos, parameter=parameter)


# --- what is made


def test_a_service_without_a_watch_is_no_kind(protos):
    silent = TOY.replace(
        "  rpc WatchNics(WatchNicsRequest) returns (stream WatchNicsResponse);", ""
    )
    made = respond(request_of(protos, nic=silent))
    assert not made.error
    assert not [file.name for file in made.file if "nic" in file.name]


@pytest.mark.parametrize(("type_", "base"), [("Condition", "Device"), ("NicPort", "Object")])
def test_only_conditions_make_a_device(protos, type_, base):
    toy = TOY.replace("repeated Condition conditions", f"repeated {type_} conditions")
    code = {file.name: file.content for file in respond(request_of(protos, nic=toy)).file}
    assert f"class Nic({base}):" in code["device_api_core/resources/_generated/nic.py"]


def test_an_expansion_is_the_base_of_the_lister(protos):
    request = request_of(protos, nic=TOY)
    for parameter, base in (("", "DeviceLister[Gpu]"), ("expansions=gpus", "GpuListerExpansion")):
        request.parameter = parameter
        code = {file.name: file.content for file in respond(request).file}
        assert f"class GpuLister({base}):" in code["device_api_core/client/_generated/gpus.py"]
        assert "DeviceLister[Nic]" in code["device_api_core/client/_generated/nics.py"]


def test_every_file_says_what_made_it_and_is_python(protos):
    files = respond(request_of(protos, nic=TOY)).file
    assert len(files) == 2 * 4 + 2 + 4
    for file in files:
        first, second = file.content.splitlines()[:2]
        assert first.startswith("# Generated by tools/codegen from ")
        assert second.startswith("# Never edit this")
        assert ast.get_docstring(ast.parse(file.content))


def test_the_same_request_gives_the_same_files(protos):
    request = request_of(protos, nic=TOY)
    answers = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, PLUGIN],
            input=request.SerializeToString(),
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
        answers.add(done.stdout)
        request.file_to_generate.sort(reverse=True)
    [answer] = answers
    response = CodeGeneratorResponse.FromString(answer)
    assert response.file
    assert response.supported_features == CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL


# --- names and texts


@pytest.mark.parametrize(
    ("name", "snake"), [("Gpu", "gpu"), ("NvSwitches", "nv_switches"), ("X2Port", "x2_port")]
)
def test_names_become_python(name, snake):
    assert names.snake(name) == snake


def test_a_group_is_named_after_its_package():
    assert names.group("nvidia.device.v1alpha1") == "v1alpha1"
    assert names.group_class("nvidia.device.v1alpha1") == "V1Alpha1"


WORDS = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=30
)


@given(st.lists(WORDS, min_size=1, max_size=60), st.lists(st.sampled_from([" ", "\n", "\n\n"])))
def test_a_comment_becomes_a_docstring_of_the_same_words(words, gaps):
    comment = "".join(w + (gaps[i] if i < len(gaps) else " ") for i, w in enumerate(words)).strip()
    code = f"class X:\n    {docstring(comment, 4)}\n"
    [found] = ast.parse(code).body
    assert isinstance(found, ast.ClassDef)
    said = (ast.get_docstring(found) or "").replace("'''", '"""')
    assert said.split() == comment.replace("'''", '"""').split()
    assert max(map(len, code.splitlines())) <= WIDTH


def test_a_list_in_a_comment_keeps_its_lines():
    comment = "It is one of\n\n  - a, the first\n  - b\n\nand nothing else."
    [found] = ast.parse(docstring(comment, 0)).body
    assert ast.get_docstring(ast.parse(docstring(comment, 0))) == comment
    assert isinstance(found, ast.Expr)
