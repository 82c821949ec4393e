"""YAML as users mean it: 1e-5 is a number, a key stands once, a fault is one line."""

import re
from pathlib import Path
from typing import Any

import yaml

from pixelis.errors import ConfigError

# YAML 1.1 reads 1e-5 as text, for want of a point.
EXPONENT = re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    text = f"duplicate key {key.value!r}"
                    raise yaml.constructor.ConstructorError(None, None, text, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Knows EXPONENT too, so that it quotes the texts that would come back as numbers."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str, name: str) -> Any:
    """The value of one YAML document; `name` is what messages call it."""
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise ConfigError(f"{name} is not valid YAML: {error.problem}{line}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a 13th month
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{name} is not valid YAML: {reason}") from error


def read_mapping(path: Path) -> dict[Any, Any]:
    """The keys and values of a YAML file."""
    if not path.exists():
        raise ConfigError(f"No such configuration file: {path} (looked from {Path.cwd()})")
    if not path.is_file():
        raise ConfigError(f"{path} is not a file; a configuration is one YAML file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, got {tree!r:.80}")
    return tree


def dump_yaml(tree: Any) -> str:
    """Text that `parse_yaml` reads back as the same value, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
