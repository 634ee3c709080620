"""The protoc plugin: a request with descriptors on stdin, a response with files on stdout.

The one parameter, ``expansions=gpus+nics``, names the kinds (as modules) that a hand-written module
in ``device_api_core/client/expansions`` adds indexers and lookups to.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from device_api_codegen.pattern import Kind, PatternError, kinds_of, unique
from device_api_codegen.rendering import render

_MESSAGE = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_FIELD = DescriptorProto.FIELD_FIELD_NUMBER


def main() -> None:
    """Answer one request."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The files for all the kinds of a request; or the error that protoc shows."""
    response = CodeGeneratorResponse(
        supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    try:
        kinds = unique(_kinds(request))
        files = render(kinds, _expansions(request.parameter, kinds))
    except PatternError as error:
        response.error = str(error)
        return response
    for name, content in sorted(files.items()):
        response.file.add(name=name, content=content)
    return response


def _kinds(request: CodeGeneratorRequest) -> Iterator[Kind]:
    pool = DescriptorPool()
    comments: dict[str, str] = {}
    for file in request.proto_file:
        pool.AddSerializedFile(file.SerializeToString())
        comments.update(_comments(file))
    for name in request.file_to_generate:
        yield from kinds_of(pool.FindFileByName(name), comments)


def _expansions(parameter: str, kinds: tuple[Kind, ...]) -> frozenset[str]:
    key, _, names = parameter.partition("=")
    if key not in {"", "expansions"}:
        raise PatternError(f"unknown parameter {key}: there is only expansions=NAME+NAME")
    expansions = frozenset(filter(None, names.split("+")))
    for unknown in sorted(expansions - {kind.module for kind in kinds}):
        raise PatternError(f"client/expansions/{unknown}.py expands no kind")
    return expansions


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """The comments before messages that are in no other, and before their fields."""
    for location in file.source_code_info.location:
        path = location.path
        if len(path) not in {2, 4} or path[0] != _MESSAGE or not location.leading_comments:
            continue
        message = file.message_type[path[1]]
        name = f"{file.package}.{message.name}"
        if len(path) == 4 and path[2] == _FIELD:
            name += f".{message.field[path[3]].name}"
        elif len(path) == 4:
            continue
        yield name, textwrap.dedent(location.leading_comments).strip()
