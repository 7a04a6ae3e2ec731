"""Tag filters: which publications of a channel one subscription wants, by their tags.

https://centrifugal.dev/docs/server/publication_filtering
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw, Struct

from actors.settings.client import ClientSettings
from serve.protocol.messages import CommandError, ErrorCode

DEPTH_MAX: Final = 100
"""How deep conditions may be nested, whatever the settings: each level takes of Python's stack."""
# What Centrifugo takes for a number (https://github.com/quagmt/udecimal): no exponent, no blanks.
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]{1,19})?")
_NUMBER_LENGTH_MAX: Final = 200


class TagFilter(Struct, frozen=True):
    """A condition on tags. Equal filters are equal keys: their subscriptions share the work.

    Attributes:
        op: Empty for a comparison; `and`, `or`, `not` join `nodes`.
        key: The tag compared. One that a publication lacks is equal to nothing, and in a list where
            an empty text is.
        cmp: `eq`, `neq`, `in`, `nin`, `ex`, `nex`, `sw`, `ew`, `ct`; as numbers `lt`, `lte`, `gt`,
            `gte`, which do not hold for what is not a number.
        val: What it is compared with.
        vals: The same for `in` and `nin`.
        nodes: What is joined: one for `not`, else one or more. A comparison passes them over, but
            the limits count them.
    """

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: frozenset[str] = frozenset()
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
    is_number = len(text) <= _NUMBER_LENGTH_MAX and _NUMBER.fullmatch(text)
    return Decimal(text) if is_number else None


def _numeric(holds: Callable[[Decimal, Decimal], bool]) -> _Comparison:
    def compare(tag: str | None, node: TagFilter) -> bool:
        one = None if tag is None else _number(tag)
        other = _number(node.val)
        return one is not None and other is not None and holds(one, other)

    return compare


_COMPARISONS: Final[Mapping[str, _Comparison]] = {
    "eq": lambda tag, node: tag == node.val,
    "neq": lambda tag, node: tag != node.val,
    "in": lambda tag, node: (tag or "") in node.vals,
    "nin": lambda tag, node: (tag or "") not in node.vals,
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
_LISTS: Final = frozenset({"in", "nin"})
_UNARY: Final = frozenset({"ex", "nex"})
_decode: Final = msgspec.json.Decoder(TagFilter).decode


def read_tag_filter(text: Raw, limits: ClientSettings) -> TagFilter | None:
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
    nodes = _nodes(found)
    values = sum(len(node.vals) for node in nodes)
    if len(nodes) > limits.filter_conditions_max or values > limits.filter_values_max:
        raise CommandError(ErrorCode.BAD_REQUEST)
    if not _is_valid(found):
        raise CommandError(ErrorCode.BAD_REQUEST)
    return found


def _nodes(found: TagFilter) -> list[TagFilter]:
    """Return all nodes, also those that count for nothing: they are kept and compared, too.

    Raises:
        CommandError: They are nested too deep.
    """
    nodes: list[TagFilter] = []
    level = [found]
    for _ in range(DEPTH_MAX):
        nodes += level
        level = [below for node in level for below in node.nodes]
        if not level:
            return nodes
    raise CommandError(ErrorCode.BAD_REQUEST)


def _is_valid(node: TagFilter) -> bool:
    match node.op:
        case "":
            return _is_comparison(node)
        case "and" | "or":
            return len(node.nodes) > 0 and all(map(_is_valid, node.nodes))
        case "not":
            return len(node.nodes) == 1 and _is_valid(node.nodes[0])
    return False


def _is_comparison(node: TagFilter) -> bool:
    if node.cmp in _UNARY:
        return not node.val and not node.vals
    given, other = (node.vals, node.val) if node.cmp in _LISTS else (node.val, node.vals)
    return node.cmp in _COMPARISONS and bool(node.key and given) and not other
