"""YAML and flags to frozen dataclasses, and back.

In:  a recipe file, ``--room.leaf value`` flags, and the dataclass that says what may be set.
Out: a validated instance; strength: dataclass default < YAML < flag.

Nothing is ignored: an unknown key, a wrong type or an impossible value is a ValueError that
names the key, the value and the nearest right one. Values are read strictly: a boolean is no
number, a number is no text.
"""

import dataclasses
import difflib
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from sslaudio import plugins
from sslaudio.plugins import Plugin

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: ``1e-3`` is a number; ``no`` and ``on`` are words, as in a label list."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag.rsplit(":", 1)[1] in ("null", "merge")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one recipe file.

    Raises:
        ValueError: the file is missing, is no YAML, or its top level is no mapping.
    """
    if not path.is_file():
        raise ValueError(f"there is no recipe {path}; give an existing YAML file with --config")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a recipe is a mapping of rooms")
    return content


def parse_flags(words: Sequence[str], schema: type, given: dict[str, Any]) -> dict[str, Any]:
    """Lay ``--room.leaf value`` flags over ``given`` (a recipe as read from YAML).

    A plug-in room takes its name first (``--objective masked_patch``), then its fields
    (``--objective.mask_share 0.6``); so does one inside a section (``--knn.task fsdd``) or inside
    another plug-in (``--objective joint --objective.second masked_patch``). A tuple leaf takes
    several words. A name other than the recipe's drops the fields the recipe gave to the former
    plug-in.

    Raises:
        ValueError: an unknown leaf (with the nearest one), a flag without a value, a stray word.
    """
    flags = grouped(words)
    merged = json.loads(json.dumps(given))
    there = set(_plugin_fields(schema, merged))
    while chosen := sorted(flags.keys() & there, key=lambda key: key.count(".")):
        holder, field = _place(merged, schema, chosen[0])  # an outer one tells what is inside it
        _choose(holder, field, chosen[0], flags.pop(chosen[0]))
        there = set(_plugin_fields(schema, merged))
    leaves = dict(leaves_of(schema, merged))
    for key, values in flags.items():
        if key not in leaves:
            raise ValueError(f"there is no --{key}{_near(key, [*leaves, *sorted(there)])}")
        holder, field = _place(merged, schema, key)
        holder[field.name] = _scalar(key, values, leaves[key])
    return merged


def build(schema: type[T], given: Mapping[str, Any], where: str = "") -> T:
    """Validate nested plain values into ``schema`` and its nested dataclasses and plug-ins.

    Args:
        schema: a dataclass; a field typed ``Plugin`` carries ``metadata={"room": ...}``.
        given: nested mappings; absent keys take the dataclass's defaults.
        where: dotted path of ``given`` inside the recipe, for messages.

    Raises:
        ValueError: an unknown key, a wrong type, or what the dataclass itself refuses.
    """
    values = typed(schema, given, where)
    fields = {field.name: field for field in _fields(schema)}
    try:
        return schema(**values)
    except TypeError as error:
        missing = [
            name
            for name, field in fields.items()
            if name not in values
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if not missing:
            raise
        raise ValueError(f"{_join(where, missing[0])} has no default and must be set") from error


def typed(schema: type, given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The values of ``given`` as the fields of ``schema`` have them, each looked at by itself.

    Raises:
        ValueError: an unknown key or a wrong type.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where or 'the recipe'} is {given!r}; it must be a mapping of keys")
    fields = {field.name: field for field in _fields(schema)}
    for key in given:
        if key not in fields:
            raise ValueError(f"there is no key {_join(where, str(key))}{_near(str(key), fields)}")
    return {key: _value(fields[key], value, _join(where, key)) for key, value in given.items()}


def plain(config: Any) -> Any:
    """The nested plain values that :func:`build` reads back to an equal ``config``."""
    if isinstance(config, Plugin):
        return {"name": config.name, **plain(config.config)}
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)
        }
    if isinstance(config, tuple | list):
        return [plain(value) for value in config]
    if isinstance(config, Path):
        return str(config)
    return config


def flat(config: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and plain value of every leaf."""
    values = plain(config) if dataclasses.is_dataclass(config) else config
    if isinstance(values, dict):
        for key, value in values.items():
            yield from flat(value, _join(where, key))
    else:
        yield where, values


def to_yaml(config: Any) -> str:
    """``config`` as YAML text, keys in the order of the dataclass."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def leaves_of(schema: type, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted path and type of every leaf that may be set, given the plug-ins chosen so far."""
    for name, config, inner in _children(schema, given):
        yield from ((f"{name}.{leaf}", kind) for leaf, kind in leaves_of(config, inner))
    for field in _fields(schema):
        if not _room(field) and not dataclasses.is_dataclass(field.type):
            yield field.name, field.type


def describe(config: type) -> list[tuple[str, str, str]]:
    """Name, default and docstring of every field of a config class, read from its source."""
    documented = field_docstrings(config)
    rows = []
    for field in _fields(config):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "required" if default is dataclasses.MISSING else json.dumps(plain(default))
        rows.append((field.name, shown, documented.get(field.name, "")))
    return rows


def field_docstrings(config: type) -> dict[str, str]:
    """Field to the string literal that stands under it in the class's source, or a base's."""
    import ast

    above = [base for base in config.__bases__ if dataclasses.is_dataclass(base)]
    found = {field: text for base in above for field, text in field_docstrings(base).items()}
    tree = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _fields(schema: type) -> tuple[dataclasses.Field, ...]:
    hints = typing.get_type_hints(schema)
    fields = dataclasses.fields(schema)
    for field in fields:
        field.type = hints[field.name]
    return fields


def _room(field: dataclasses.Field) -> str | None:
    return field.metadata.get("room")


def _is_list(field: dataclasses.Field) -> bool:
    return typing.get_origin(field.type) is tuple


def _children(
    schema: type, given: Mapping[str, Any]
) -> Iterator[tuple[str, type, Mapping[str, Any]]]:
    """What is inside ``schema``, plug-ins and sections: dotted name, config class, its values."""
    for field in _fields(schema):
        room = _room(field)
        if room:
            for entry in _entries(field, given):
                name = f"{field.name}.{entry['name']}" if _is_list(field) else field.name
                yield name, plugins.load(room, entry["name"]).Config, entry
        elif dataclasses.is_dataclass(field.type):
            inner = given.get(field.name)
            values = inner if isinstance(inner, Mapping) else {}
            yield field.name, typing.cast(type, field.type), values


def _entries(field: dataclasses.Field, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plug-ins given for a room, or its default, as mappings with a name."""
    value = given.get(field.name)
    entries = plain(_default(field)) if value is None else value
    if not _is_list(field):
        entries = [entries]
    if not isinstance(entries, list):
        raise ValueError(f"{field.name} is {value!r}; it must be a list of plug-ins")
    named = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    for entry in named:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            room = typing.cast(str, _room(field))
            raise ValueError(
                f"{field.name} is {entry!r}; it must be a mapping with a name, such as "
                f"{field.name}: {{name: {plugins.names(room)[0]}}}"
            )
    return named


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _value(field: dataclasses.Field, value: Any, where: str) -> Any:
    room = _room(field)
    if room and _is_list(field):
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}; it must be a list of plug-ins")
        chosen = tuple(plugin(room, entry, f"{where}.{index}") for index, entry in enumerate(value))
        doubled = {one.name for one in chosen if [o.name for o in chosen].count(one.name) > 1}
        if doubled:
            raise ValueError(f"{where} names {doubled.pop()!r} twice; name each plug-in once")
        return chosen
    if room:
        return plugin(room, value, where)
    if dataclasses.is_dataclass(field.type):
        empty = value is None  # a section of which only the heading stands
        return build(typing.cast(type, field.type), {} if empty else value, where)
    try:
        adapter = TypeAdapter(typing.cast(Any, field.type))
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "missing":  # of a tuple
            first["msg"] = f"give {_pair_length(field.type)} values"
        raise ValueError(f"{where} is {value!r}: {first['msg']}") from error


def _pair_length(type_: Any) -> int:
    """How many values a tuple of fixed length takes, optional or not."""
    kinds = typing.get_args(type_) if typing.get_origin(type_) is not tuple else (type_,)
    return max(len(typing.get_args(kind)) for kind in kinds)


def plugin(room: str, given: Any, where: str) -> Plugin:
    """Validate ``{name: masked_patch, ...its fields}``, or the bare name, into a plug-in."""
    entry = {"name": given} if isinstance(given, str) else given
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ValueError(
            f"{where} is {given!r}; it must be a name of {room} or a mapping with one, such as "
            f"{{name: {plugins.names(room)[0]}}}"
        )
    fields = {key: value for key, value in entry.items() if key != "name"}
    module = plugins.load(room, entry["name"])
    return Plugin(room, entry["name"], build(module.Config, fields, where))


def grouped(words: Sequence[str]) -> dict[str, list[str]]:
    """Flags without their dashes, and the words that each is given.

    Raises:
        ValueError: a flag given twice or without a value, a stray word.
    """
    flags: dict[str, list[str]] = {}
    key = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            if key in flags:
                raise ValueError(f"--{key} is given twice; give it once")
            flags[key] = [value] if equals else []
        elif key:
            flags[key].append(word)
        else:
            raise ValueError(f"{word!r} belongs to no flag; settings are written --room.leaf value")
    for key, values in flags.items():
        if not values:
            raise ValueError(f"--{key} has no value; write --{key} VALUE")
    return flags


def _plugin_fields(schema: type, given: Mapping[str, Any]) -> Iterator[str]:
    """Dotted name of every plug-in, those inside sections and inside other plug-ins too."""
    yield from (field.name for field in _fields(schema) if _room(field))
    for name, config, inner in _children(schema, given):
        yield from (f"{name}.{below}" for below in _plugin_fields(config, inner))


def _place(
    holder: dict[str, Any], schema: type, key: str
) -> tuple[dict[str, Any], dataclasses.Field]:
    """The mapping in nested plain values that ``key`` is to stand in, and its field there.

    What is on the way and not yet given is written out as it is by default.
    """
    top, _, rest = key.partition(".")
    field = {field.name: field for field in _fields(schema)}[top]
    if not rest:
        return holder, field
    room = _room(field)
    if not room:
        return _place(_section(holder, top), typing.cast(type, field.type), rest)
    entries = _entries(field, holder)
    holder[top] = entries if _is_list(field) else entries[0]
    inner = entries[0]
    if _is_list(field):
        inner = next(entry for entry in entries if rest.startswith(f"{entry['name']}."))
        rest = rest.removeprefix(f"{inner['name']}.")
    return _place(inner, plugins.load(room, inner["name"]).Config, rest)


def _choose(holder: dict[str, Any], field: dataclasses.Field, key: str, chosen: list[str]) -> None:
    """Put the plug-ins named ``chosen`` into ``field``; those given already keep their fields."""
    room = typing.cast(str, _room(field))
    wanted = [name for name in chosen if name != "none"]
    for name in wanted:
        plugins.load(room, name)
    if _is_list(field):
        given = {entry["name"]: entry for entry in _entries(field, holder)}
        holder[field.name] = [given.get(name, {"name": name}) for name in wanted]
        return
    if len(chosen) > 1:
        raise ValueError(f"--{key} takes one name, not {' '.join(chosen)}")
    if _entries(field, holder)[0]["name"] != chosen[0]:
        holder[field.name] = {"name": chosen[0]}


def _section(holder: dict[str, Any], name: str) -> dict[str, Any]:
    """What ``holder`` gives below ``name``; of an empty heading, nothing yet."""
    inner: dict[str, Any] = holder.get(name) or {}
    if not isinstance(inner, dict):
        raise ValueError(f"{name} is {inner!r}; it must be a mapping of keys")
    holder[name] = inner
    return inner


def _scalar(key: str, values: list[str], type_: Any) -> Any:
    union = typing.get_origin(type_) in (typing.Union, types.UnionType)
    kinds = typing.get_args(type_) if union else (type_,)
    if types.NoneType in kinds and values in (["none"], ["null"]):
        return None
    several = next((kind for kind in kinds if typing.get_origin(kind) is tuple), None)
    if several is not None:
        inner = typing.get_args(several)[0]
        return [] if values == ["none"] else [_scalar(key, [value], inner) for value in values]
    if len(values) > 1:
        raise ValueError(f"--{key} takes one value, not {' '.join(values)}")
    if any(kind in (str, Path) or typing.get_origin(kind) is typing.Literal for kind in kinds):
        return values[0]
    try:
        return yaml.load(values[0], _Loader)  # a SafeLoader
    except yaml.YAMLError:
        return values[0]


def _near(key: str, known: Any) -> str:
    match = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    if match:
        return f"; did you mean {match[0]}?"
    tops = sorted({name.split(".")[0] for name in known})
    return f"; there is {', '.join(tops)}"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
