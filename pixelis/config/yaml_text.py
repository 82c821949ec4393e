"""YAML with numbers such as 1e-5, without duplicate keys, and with one-line errors.

PyYAML alone reads 1e-5 as text, uses the last of two equal keys, and has no limits.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from pixelis.config.section import show
from pixelis.errors import ConfigError

EXPONENT = re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
# Far above any configuration, and still read in seconds.
MAX_CHARACTERS = 200_000
# Limit of values with every *alias expanded: ten lines of aliases can mean a billion values.
MAX_VALUES = 50_000
MAX_DEPTH = 50
MAX_NUMBER = 1000  # characters of a number; Python cannot print more than 4,300 digits
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _fault(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, text, mark)


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.depth >= MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _fault(f"values may be nested {MAX_DEPTH} deep", mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; a wrong tag raises an error with its line."""
        if node.tag in NUMBERS and len(node.value) > MAX_NUMBER:
            text = f"a number may have {MAX_NUMBER} characters, got {len(node.value)}"
            raise _fault(text, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (LookupError, AttributeError, TypeError, ArithmeticError) as error:
            text = f"{node.value!r:.40} cannot be read as {node.tag.rpartition(':')[2]}"
            raise _fault(text, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):  # another node with a mapping's tag
            raise _fault(f"expected keys and values, got {node.value!r:.40}", node.start_mark)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _fault(f"duplicate key {key.value!r}", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A dumper that knows EXPONENT, so that it quotes texts that would be read back as numbers."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(NUMBERS[1], EXPONENT, list("-+.0123456789"))


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node with expanded aliases; those of a circle count once."""
    if id(node) not in known:
        known[id(node)] = 1
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in inner)
    return known[id(node)]


def parse_yaml(text: str, name: str) -> Any:
    """Return the value of one YAML document; `name` is its name in messages.

    Raises:
        ConfigError: when it is not valid YAML, or exceeds the limits above with expanded aliases.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{name} may have {MAX_CHARACTERS} characters, got {len(text)}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        count = _count_values(node, {}) if node is not None else 0
        if count <= MAX_VALUES:
            return loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise ConfigError(f"{name} is not valid YAML: {error.problem}{line}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a 13th month
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{name} is not valid YAML: {reason}") from error
    rule = f"may hold {MAX_VALUES} values, aliases written out"
    raise ConfigError(f"{name} {rule}, got {count:.3g}")


def read_mapping(path: Path) -> dict[Any, Any]:
    """Return the keys and values of a YAML file.

    Raises:
        ConfigError: when the file cannot be read or is not a mapping.
    """
    if not path.exists():
        raise ConfigError(f"No such configuration file: {path} (looked from {Path.cwd()})")
    if not path.is_file():
        raise ConfigError(f"{path} is not a file; a configuration is one YAML file")
    try:
        if (size := path.stat().st_size) > 4 * MAX_CHARACTERS:
            raise ConfigError(f"{path} may have {4 * MAX_CHARACTERS} bytes, got {size}")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, got {show(tree)}")
    return tree


def dump_yaml(tree: Any) -> str:
    """Return text that `parse_yaml` reads back as the same value, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
