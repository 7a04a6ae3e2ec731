"""The schema of Protobuf: that of the SDKs, that of our structs, and that of its source."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from msgspec import Struct

from serve.protocol import protocol_pb2
from serve.protocol.messages import ClientInfo, CommandBody, Push, Result, StreamPosition
from serve.protocol.tag_filter import TagFilter
from tests.conftest import needs
from tests.protobuf_speech import SCHEMA

ROOT: Final = Path(__file__).parents[4]
PROTO: Final = "serve/protocol/protocol.proto"
THEIR_NAMES: Final = {"Uplink": "EmulationRequest"}
"""Of messages that stand in no other one."""


def nested(ours: Descriptor, theirs: Descriptor) -> dict[str, tuple[Descriptor, Descriptor]]:
    """Return each message that may stand in one of ours, beside theirs, by our name."""
    found = {ours.full_name: (ours, theirs)}
    waiting = [(ours, theirs)]
    while waiting:
        one, other = waiting.pop()
        for field in one.fields:
            inner, outer = field.message_type, other.fields_by_name[field.name].message_type
            if inner is not None and inner.full_name not in found:
                assert outer is not None
                found[inner.full_name] = inner, outer
                waiting.append((inner, outer))
    return found


def every() -> list[tuple[Descriptor, Descriptor]]:
    """Return all messages of ours, each beside theirs."""
    found: dict[str, tuple[Descriptor, Descriptor]] = {}
    for name in ("Command", "Reply", "Uplink"):
        ours = protocol_pb2.DESCRIPTOR.message_types_by_name[name]
        theirs = SCHEMA.DESCRIPTOR.message_types_by_name[THEIR_NAMES.get(name, name)]
        found |= nested(ours, theirs)
    return list(found.values())


def shape(message: Descriptor, name: str) -> tuple[Any, ...]:
    """Return what must be the same of a field for bytes to mean the same."""
    field = message.fields_by_name[name]
    in_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    return field.number, field.type, field.is_repeated, in_map, field.has_presence


@pytest.mark.parametrize(("ours", "theirs"), every(), ids=lambda message: message.name)
def test_fields_are_those_of_the_protocol(ours: Descriptor, theirs: Descriptor) -> None:
    """Number and type of each are what an SDK was built with."""
    for field in ours.fields:
        assert shape(ours, field.name) == shape(theirs, field.name), field.name


def test_every_message_is_compared() -> None:
    """None stands in the schema that nothing leads to."""
    compared = {ours.full_name for ours, _ in every()}
    assert {m.full_name for m in protocol_pb2.DESCRIPTOR.message_types_by_name.values()} <= compared


STRUCTS: Final = [
    *get_args(CommandBody),
    *get_args(Result),
    *get_args(Push),
    ClientInfo,
    StreamPosition,
    TagFilter,
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_messages_have_the_fields_of_our_structs(struct: type[Struct]) -> None:
    """The codec goes by their names; one that a message lacks Protobuf clients would never see."""
    message = protocol_pb2.DESCRIPTOR.message_types_by_name[struct.__name__]
    assert {field.name for field in message.fields} == set(struct.__struct_fields__)


@pytest.mark.parametrize(
    ("outer", "kinds"), [("Command", CommandBody), ("Reply", Result), ("Push", Push)]
)
def test_all_that_is_said_in_json_can_be_said(outer: str, kinds: Any) -> None:
    """No command, result or push is known to one codec only."""
    fields = protocol_pb2.DESCRIPTOR.message_types_by_name[outer].fields
    named = {field.message_type.name for field in fields if field.message_type}
    assert named - {"Error", "Push", "Publication"} == {kind.__name__ for kind in get_args(kinds)}


def plain(file: FileDescriptorProto) -> FileDescriptorProto:
    """Leave out what compilers write or not: how fields are called in JSON."""

    def strip(message: DescriptorProto) -> None:
        for field in message.field:
            field.ClearField("json_name")
        for inner in message.nested_type:
            strip(inner)

    for message in file.message_type:
        strip(message)
    return file


def test_module_is_what_its_source_says(tmp_path: Path) -> None:
    """Who changes the source also says `make proto`."""
    if importlib.util.find_spec("grpc_tools") is None:
        needs("grpcio-tools, of the extra `test`")
    made = tmp_path / "made"
    protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    subprocess.run(
        [*protoc, "--proto_path=.", f"--descriptor_set_out={made}", PROTO], cwd=ROOT, check=True
    )
    (wanted,) = FileDescriptorSet.FromString(made.read_bytes()).file
    got = FileDescriptorProto()
    protocol_pb2.DESCRIPTOR.CopyToProto(got)
    assert plain(got) == plain(wanted)
