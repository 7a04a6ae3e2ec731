"""YAML with the line of every value, as plain data; a name that stands twice is refused.

Same values as `yaml.safe_load`, which drops duplicate names silently and forgets the lines.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

Path = tuple[str | int, ...]
"""Where a value stands: names and list indexes from the top."""

_DEPTH_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where: `path` is empty for the text as a whole."""

    path: Path
    line: int
    text: str


@dataclass(slots=True)
class Document:
    """What a YAML text holds.

    Attributes:
        value: Plain data; None for an empty text, or where `problems` begin with a syntax error.
        lines: Path -> line, counted from 1; for a member of a mapping, the line of its name.
        problems: In the order of the text.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_yaml(text: str | bytes) -> Document:
    """Read one YAML document. Never raises for what the text holds: see `Document.problems`."""
    document = Document()
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.value = _Reader(loader, document).read(node, (), 0)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        document.value = None
        document.problems.append(_syntax_problem(error))
    return document


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._checked: set[int] = set()

    def read(self, node: yaml.Node, path: Path, depth: int) -> Any:
        """Return the node's value, noting lines. An alias that holds itself ends at a depth."""
        if depth > _DEPTH_MAX:
            raise yaml.constructor.ConstructorError(
                None, None, "nested too deep, or an alias that holds itself", node.start_mark
            )
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._read_mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [
                self.read(child, (*path, index), depth + 1)
                for index, child in enumerate(node.value)
            ]
        return self._plain(node)

    def _plain(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node, deep=True)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
            # What PyYAML lets escape for text that its tag does not fit, `2020-13-45` among it.
            text = f"{str(node.value)[:60]!r} is no {node.tag.rpartition(':')[2]}: "
            raise yaml.constructor.ConstructorError(
                None, None, text + "correct it, or put it in quotes", node.start_mark
            ) from error

    def _read_mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[Any, Any]:
        if id(node) not in self._checked:  # an alias comes here again, already flattened
            self._checked.add(id(node))
            self._refuse_duplicates(node, path)
            self._loader.flatten_mapping(node)
        found: dict[Any, Any] = {}
        for name_node, value_node in node.value:
            name = self._plain(name_node)
            if not isinstance(name, str | int):
                raise yaml.constructor.ConstructorError(
                    None, None, "a name that is not text", name_node.start_mark
                )
            below = (*path, name)
            self._document.lines[below] = name_node.start_mark.line + 1
            found[name] = self.read(value_node, below, depth + 1)
        return found

    def _refuse_duplicates(self, node: yaml.MappingNode, path: Path) -> None:
        first: dict[str, int] = {}
        for name_node, _ in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                continue
            name, line = name_node.value, name_node.start_mark.line + 1
            if name in first and name_node.tag != "tag:yaml.org,2002:merge":
                text = f"stands twice, first in line {first[name]}: remove one"
                self._document.problems.append(Problem((*path, name), line, text))
            first.setdefault(name, line)


def _syntax_problem(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark is not None else 1
    if isinstance(error, yaml.reader.ReaderError):
        return Problem((), line, f"not text in UTF-8 (at byte {error.position}): save it as UTF-8")
    if isinstance(error, RecursionError):
        return Problem((), line, "nested too deep")
    text = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    return Problem((), line, f"not YAML: {f'{context}, ' if context else ''}{text}")
