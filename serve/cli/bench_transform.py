"""The transform of `raywire bench --own`: what the demo's do to a message, with less arithmetic."""

from actors.message import Message


def measure(message: Message) -> Message:
    """Add a field, so that each message is decoded, changed and encoded."""
    data = message.data
    if isinstance(data, dict):
        return message.replace(data={**data, "fields": len(data)})
    return message
