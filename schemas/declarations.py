"""Reads the files that declare what Inkstream does: `topics.yaml` and `notifications.yaml`.

Input: a YAML file. Output: its values, each of which knows its key and its line, so that every mistake is reported as
`topics.yaml:17: unknown key retenton; did you mean retention?`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, Self

import yaml

from schemas.nearest import suggestion

_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_LONGEST = timedelta(days=9999)

# PyYAML says where it gave up, but not why.
_WHAT_TO_CHECK = '; is the indentation right? A text that contains ": ", " #", { or [ needs double quotes'


class DeclarationError(ValueError):
    """A declaration is wrong; the message begins with file and line: `topics.yaml:17: unknown class ...`."""


def parse_duration(text: str) -> timedelta | None:
    """Return the duration that a text such as `90s`, `30m`, `12h` or `7d` means; `None` for any other text."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None


@dataclass(frozen=True, slots=True)
class Value:
    """A value in a declaration file.

    Each method that reads it raises `DeclarationError` where the value has another form.

    Attributes:
        file: The file's name.
        key: The key that it belongs to; `the file` for the whole file. Items of a list have the key of the list.
        line: The line of the key, or of the list's item, from 1.
    """

    file: str
    key: str
    line: int
    _node: yaml.Node = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the content of a file.

        Raises:
            DeclarationError: The file can't be read, is not YAML, or is empty.
        """
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise DeclarationError(f"{path}: can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DeclarationError(f"{path.name}: is not UTF-8: {error.reason}") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise DeclarationError(f"{path.name}:{line}: is not YAML: {error.problem}{_WHAT_TO_CHECK}") from error
        except yaml.YAMLError as error:
            raise DeclarationError(f"{path.name}: is not YAML: {error}") from error
        if root is None:
            raise DeclarationError(f"{path.name}:1: is empty")
        return cls(path.name, "the file", root.start_mark.line + 1, root)

    def wrong(self, problem: str) -> NoReturn:
        """Report a problem with this value.

        Raises:
            DeclarationError: Always.
        """
        raise DeclarationError(f"{self.file}:{self.line}: {problem}")

    def mapping(self, *, like: str = "") -> dict[str, "Value"]:
        """Return the values by key, whatever the keys are.

        Args:
            like: An example, for the error message.
        """
        if not isinstance(self._node, yaml.MappingNode):
            self.wrong(f"{self.key} should be a mapping of keys to values{f', like {like}' if like else ''}")
        values: dict[str, Value] = {}
        for key_node, node in self._node.value:
            line = key_node.start_mark.line + 1
            key = Value(self.file, "a key", line, key_node).text()
            value = Value(self.file, key, line, node)
            if key in values:
                value.wrong(f"{key} is declared twice")
            values[key] = value
        return values

    def fields(self, known: Collection[str], required: Collection[str] = (), *, like: str = "") -> dict[str, "Value"]:
        """Return the values by key, where only known keys are allowed."""
        values = self.mapping(like=like)
        # A misspelt key is missing as well: report the key that is there.
        for key, value in values.items():
            if key not in known:
                value.wrong(f"unknown key {key}; {suggestion(key, known)}")
        for key in required:
            if key not in values:
                self.wrong(f"{key} is missing")
        return values

    @property
    def keys(self) -> frozenset[str]:
        """The keys of a mapping; empty for any other value."""
        return frozenset(self.mapping()) if isinstance(self._node, yaml.MappingNode) else frozenset()

    def items(self, *, like: str) -> list["Value"]:
        """Return the items of a list, which must not be empty or repeat a text.

        Args:
            like: An example, for the error message.
        """
        if not isinstance(self._node, yaml.SequenceNode):
            self.wrong(f"{self.key} should be a list, like {like}")
        if not self._node.value:
            self.wrong(f"{self.key} should not be empty")
        items = [Value(self.file, self.key, node.start_mark.line + 1, node) for node in self._node.value]
        seen = set()
        for item in items:
            if (text := item.text()) in seen:
                item.wrong(f"{text} is listed twice")
            seen.add(text)
        return items

    def one_or_more(self) -> list["Value"]:
        """Return the items of a list; a single text counts as a list of one."""
        return [self] if isinstance(self._node, yaml.ScalarNode) else self.items(like="[postAuthorId, parentAuthorId]")

    def text(self) -> str:
        """Return a text, without spaces around it."""
        if not isinstance(self._node, yaml.ScalarNode):
            self.wrong(f"{self.key} should be a text")
        text: str = self._node.value.strip()
        if not text or self._node.tag == "tag:yaml.org,2002:null":
            self.wrong(f"{self.key} should not be empty")
        return text

    def one_of(self, choices: Collection[str]) -> str:
        """Return a text that is one of several."""
        text = self.text()
        if text not in choices:
            *others, last = choices
            self.wrong(f"{self.key}: {text} should be {', '.join(others)} or {last}")
        return text

    def flag(self) -> bool:
        """Return `true` or `false`."""
        text = self.text()
        assert isinstance(self._node, yaml.ScalarNode)
        if text not in ("true", "false") or self._node.style is not None:
            self.wrong(f"{self.key}: {text} should be true or false, without quotes")
        return text == "true"

    def number(self, most: int) -> int:
        """Return a whole number from 1 to `most`."""
        text = self.text()
        if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= most:
            self.wrong(f"{self.key}: {text} should be a whole number from 1 to {most}")
        return int(text)

    def duration(self, longest: timedelta = _LONGEST) -> timedelta:
        """Return a time of at least a minute."""
        text = self.text()
        duration = parse_duration(text)
        if not duration or text.endswith("s"):
            self.wrong(f"{self.key}: {text} should be a time in minutes, hours or days, like 30m, 12h or 7d")
        if duration > longest:
            self.wrong(f"{self.key}: {text} should be at most {longest.days}d")
        return duration
