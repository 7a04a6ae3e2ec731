"""The client protocol in Protobuf by the schema of an SDK.

Commands and messages are the dicts that they are in JSON, so that one test can speak both.
"""

import io
import json
from typing import Any, Final

from centrifuge.protocol import client_pb2  # type: ignore[import-untyped] # It has no types.
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

SCHEMA: Final[Any] = client_pb2
_WRITTEN: Final[dict[str, dict[str, Any]]] = {
    "ClientInfo": {"user": "", "client": ""},
    "PresenceResult": {"presence": {}},
    "PresenceStatsResult": {"num_clients": 0, "num_users": 0},
    "HistoryResult": {"publications": [], "epoch": "", "offset": 0},
}
"""What stands in JSON even if it is zero."""


def to_protobuf(*commands: dict[str, Any]) -> bytes:
    """Make a frame."""
    frame = io.BytesIO()
    for command in commands:
        serialize_length_prefixed(
            SCHEMA.Command(**_members(SCHEMA.Command.DESCRIPTOR, command)), frame
        )
    return frame.getvalue()


def from_protobuf(frame: bytes) -> list[Any]:
    """Read the messages of a frame."""
    rest = io.BytesIO(frame)
    found: list[Any] = []
    while (reply := parse_length_prefixed(SCHEMA.Reply, rest)) is not None:
        found.append(_dict(reply))
    return found


def _members(message: Descriptor, value: dict[str, Any]) -> dict[str, Any]:
    return {name: _member(message.fields_by_name[name], item) for name, item in value.items()}


def _member(field: FieldDescriptor, item: Any) -> Any:
    kind = field.message_type
    if kind is None:
        return json.dumps(item).encode() if field.type == FieldDescriptor.TYPE_BYTES else item
    if kind.GetOptions().map_entry:
        values = kind.fields_by_name["value"]
        return {key: _member(values, each) for key, each in item.items()}
    if field.is_repeated:
        return [_members(kind, each) for each in item]
    return _members(kind, item)


def _dict(message: Any) -> dict[str, Any]:
    found = {k: type(v)(v) for k, v in _WRITTEN.get(message.DESCRIPTOR.name, {}).items()}
    return found | {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    kind = field.message_type
    if kind is None:
        return json.loads(value) if field.type == FieldDescriptor.TYPE_BYTES else value
    if kind.GetOptions().map_entry:
        values = kind.fields_by_name["value"]
        return {key: _value(values, each) for key, each in value.items()}
    return [_dict(item) for item in value] if field.is_repeated else _dict(value)
