"""Tag filters: which publications of a channel one subscription wants, by their tags.

https://centrifugal.dev/docs/server/publication_filtering
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec
from msgspec import Raw, Struct

from serve.protocol import CommandError, ErrorCode

NODES_MAX: Final = 100
"""Conditions of one filter; more: error 107."""
DEPTH_MAX: Final = 10
"""How deep they may be nested."""


class TagFilter(Struct, frozen=True):
    """A condition on tags. Equal filters are equal keys: their subscriptions share the work.

    Attributes:
        op: Empty for a comparison; `and`, `or`, `not` join `nodes`.
        key: The tag compared. One that a publication lacks is equal to nothing.
        cmp: `eq`, `neq`, `in`, `nin`, `ex`, `nex`, `sw`, `ew`, `ct`; as numbers `lt`, `lte`, `gt`,
            `gte`, which do not hold for what is not a number.
        val: What it is compared with.
        vals: The same for `in` and `nin`.
        nodes: What is joined: one for `not`, else one or more.
    """

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: tuple[str, ...] = ()
    nodes: tuple["TagFilter", ...] = ()

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Tell whether a publication with these tags is wanted."""
        if self.op == "and":
            return all(node.matches(tags) for node in self.nodes)
        if self.op == "or":
            return any(node.matches(tags) for node in self.nodes)
        if self.op == "not":
            return not self.nodes[0].matches(tags)
        return _COMPARISONS[self.cmp](tags.get(self.key), self)


_Comparison = Callable[[str | None, TagFilter], bool]


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _numeric(holds: Callable[[Decimal, Decimal], bool]) -> _Comparison:
    def compare(tag: str | None, node: TagFilter) -> bool:
        one = None if tag is None else _number(tag)
        other = _number(node.val)
        return one is not None and other is not None and holds(one, other)

    return compare


_COMPARISONS: Final[Mapping[str, _Comparison]] = {
    "eq": lambda tag, node: tag == node.val,
    "neq": lambda tag, node: tag != node.val,
    "in": lambda tag, node: tag in node.vals,
    "nin": lambda tag, node: tag not in node.vals,
    "ex": lambda tag, node: tag is not None,
    "nex": lambda tag, node: tag is None,
    "sw": lambda tag, node: tag is not None and tag.startswith(node.val),
    "ew": lambda tag, node: tag is not None and tag.endswith(node.val),
    "ct": lambda tag, node: tag is not None and node.val in tag,
    "lt": _numeric(lambda one, other: one < other),
    "lte": _numeric(lambda one, other: one <= other),
    "gt": _numeric(lambda one, other: one > other),
    "gte": _numeric(lambda one, other: one >= other),
}
_decode: Final = msgspec.json.Decoder(TagFilter).decode


def read_tag_filter(text: Raw) -> TagFilter | None:
    """Return the filter of a subscribe request; None: it has none.

    Raises:
        CommandError: It is not valid, or too large.
    """
    if bytes(text) in (b"", b"null"):
        return None
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CommandError(ErrorCode.BAD_REQUEST) from error
    if _size((found,), DEPTH_MAX) > NODES_MAX:
        raise CommandError(ErrorCode.BAD_REQUEST)
    return found


def _size(nodes: Sequence[TagFilter], depth: int) -> int:
    """Return how many conditions there are, all of them valid and not too deep."""
    if not depth or not all(map(_is_valid, nodes)):
        raise CommandError(ErrorCode.BAD_REQUEST)
    return len(nodes) + sum(_size(node.nodes, depth - 1) for node in nodes if node.nodes)


def _is_valid(node: TagFilter) -> bool:
    match node.op:
        case "":
            return bool(node.key) and node.cmp in _COMPARISONS and not node.nodes
        case "and" | "or":
            return len(node.nodes) > 0
        case "not":
            return len(node.nodes) == 1
    return False
