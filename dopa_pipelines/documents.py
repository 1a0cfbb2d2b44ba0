"""YAML documents that know their lines, and the problems found in them.

Contracts, publications and agreements are read through here, so that every complaint names file and line. What a document
means belongs to the room that owns it, not here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

type_loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a document: where (file, line counted from 1) and what, with what would be right."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class DocumentError(Exception):
    """A document that cannot be used at all; ``problems`` says why, never empty."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass
class Document:
    """A parsed YAML mapping with the line of every key in it."""

    path: Path
    data: dict[str, Any]
    _root: yaml.Node | None = field(repr=False, default=None)

    def line(self, *keys: str | int) -> int:
        """Line (from 1) of the value at ``keys``, or of its nearest parent that exists."""
        node, line = self._root, 1
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(key)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        return line

    def problem(self, message: str, *keys: str | int) -> Problem:
        return Problem(self.path, self.line(*keys), message)


def read_document(path: Path) -> Document:
    """Read a YAML mapping. Raises :class:`DocumentError` where it is unreadable or repeats a key."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise DocumentError([Problem(path, 1, f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise DocumentError([Problem(path, 1, "is not UTF-8; save it as UTF-8")]) from error
    loader = type_loader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise DocumentError([Problem(path, 1, "must be a YAML mapping of keys to values")])
        repeated = list(_repeated_keys(path, root))
        if repeated:
            raise DocumentError(repeated)
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DocumentError([Problem(path, line, f"is not valid YAML: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise DocumentError([Problem(path, 1, f"is not valid YAML: {error}")]) from error
    finally:
        loader.dispose()
    return Document(path, data, root)


def _repeated_keys(path: Path, node: yaml.Node) -> Iterable[Problem]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield Problem(path, key.start_mark.line + 1, f"the key {key.value!r} stands twice; keep one")
            seen.add(key.value)
            yield from _repeated_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated_keys(path, value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Closing words of a complaint: the nearest known name, or the list of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def unknown_keys(document: Document, model: type[BaseModel]) -> list[Problem]:
    """Keys of ``document`` that ``model`` has no field for, at any depth: a typing error must not vanish."""
    found: list[Problem] = []
    _walk(document, model, document.data, (), found)
    return found


def _walk(document: Document, model: type[BaseModel], data: Any, at: tuple[str | int, ...], found: list[Problem]) -> None:
    if not isinstance(data, Mapping):
        return
    fields = _fields(model)
    for key, value in data.items():
        if key not in fields:
            message = f"unknown key {key!r}; {did_you_mean(str(key), fields)}"
            found.append(document.problem(message, *at, key))
            continue
        for inner in fields[key]:
            if isinstance(value, list):
                for position, item in enumerate(value):
                    _walk(document, inner, item, (*at, key, position), found)
            else:
                _walk(document, inner, value, (*at, key), found)


@cache
def _fields(model: type[BaseModel]) -> dict[str, list[type[BaseModel]]]:
    """The keys a model takes, and the models that their values are."""
    return {info.alias or name: _models_in(info.annotation) for name, info in model.model_fields.items()}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, list):
        models = [model for part in get_args(annotation) for model in _models_in(part)]
        return models[:1]
    return []


def validation_problems(document: Document, error: ValidationError) -> list[Problem]:
    """Pydantic's complaints as problems of the document, one a place."""
    problems = []
    for item in error.errors(include_url=False):
        keys = tuple(part for part in item["loc"] if isinstance(part, (str, int)))
        where = ".".join(str(part) for part in keys)
        problems.append(document.problem(f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}", *keys))
    return problems
