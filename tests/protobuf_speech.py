"""The client protocol in Protobuf as others implemented it: Google's library, an SDK's schema.

Commands and messages are the dicts that they are in JSON, so that one test can speak both.
"""

import io
import json
from typing import Any, Final

# Neither has types.
from centrifuge.protocol import client_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.proto import (  # type: ignore[import-untyped]
    parse_length_prefixed,
    serialize_length_prefixed,
)

SCHEMA: Final[Any] = client_pb2
KINDS: Final[Any] = FieldDescriptor
"""Names of the types of fields: `TYPE_BOOL` and so on."""
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
        serialize_length_prefixed(_build(SCHEMA.Command, command), frame)
    return frame.getvalue()


def from_protobuf(frame: bytes) -> list[Any]:
    """Read the messages of a frame."""
    rest = io.BytesIO(frame)
    found: list[Any] = []
    while (reply := parse_length_prefixed(SCHEMA.Reply, rest)) is not None:
        found.append(_dict(reply))
    return found


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _build(kind: Any, value: dict[str, Any]) -> Any:
    message = kind()
    for name, item in value.items():
        field = kind.DESCRIPTOR.fields_by_name[name]
        if field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, name, json.dumps(item).encode())
        elif _is_map(field) and field.message_type.fields_by_name["value"].message_type:
            target = getattr(message, name)
            for key, each in item.items():
                target[key].CopyFrom(_build(type(target[key]), each))
        elif _is_map(field):
            getattr(message, name).update(item)
        elif field.is_repeated:
            getattr(message, name).extend(
                [_build(_class(field), each) if field.message_type else each for each in item]
            )
        elif field.message_type:
            getattr(message, name).SetInParent()
            getattr(message, name).CopyFrom(_build(_class(field), item))
        else:
            setattr(message, name, item)
    return message


def _class(field: FieldDescriptor) -> Any:
    return getattr(SCHEMA, field.message_type.name)


def _dict(message: Any) -> dict[str, Any]:
    found = {k: type(v)(v) for k, v in _WRITTEN.get(message.DESCRIPTOR.name, {}).items()}
    return found | {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if _is_map(field):
        nested = field.message_type.fields_by_name["value"].message_type
        return {key: _dict(item) if nested else item for key, item in value.items()}
    if field.is_repeated:
        return [_dict(item) if field.message_type else item for item in value]
    if field.message_type:
        return _dict(value)
    return json.loads(value) if field.type == FieldDescriptor.TYPE_BYTES else value
