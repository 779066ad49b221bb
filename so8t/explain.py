"""What every key of a config means, from the typed sections themselves: `so8t config explain`, docs/configuration.md."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from so8t.config import Config, _models


@dataclass(frozen=True)
class Key:
    """One key: what it takes, what holds where it is absent, and what it does."""

    name: str
    takes: str
    default: str  # as YAML on one line; empty where the key is required
    text: str


@dataclass(frozen=True)
class Part:
    """A section, or one kind of it; `where` is its dotted path, with [] for an item of a list and NAME for a chosen name."""

    where: str
    text: str
    keys: tuple[Key, ...]


def parts(prefix: str = "") -> list[Part]:
    """Every section at or below a dotted path, in the order of the config; one key's path gives its section with it alone."""
    everything = list(_walk(Config, ""))
    found = [part for part in everything if part.where == prefix or not prefix or _below(part.where, prefix)]
    if found:
        return found
    section, _, name = prefix.rpartition(".")
    return [
        Part(part.where, part.text, tuple(key for key in part.keys if key.name == name))
        for part in everything
        if _plain(part.where) == section and any(key.name == name for key in part.keys)
    ]


def names() -> list[str]:
    """Every key and section, dotted."""
    everything = list(_walk(Config, ""))
    return sorted({f"{_plain(part.where)}.{key.name}".lstrip(".") for part in everything for key in part.keys})


def _plain(where: str) -> str:
    """Without kinds and brackets: as one would write it in --set."""
    return re.sub(r" \(kind: .*?\)|\[\]", "", where)


def _below(where: str, prefix: str) -> bool:
    return _plain(where) == prefix or _plain(where).startswith(prefix + ".")


def _walk(model: type[BaseModel], where: str) -> Iterator[Part]:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    keys = []
    below = []
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        below += [(kind, f"{where}.{name}".lstrip(".") + _suffix(field.annotation, kind, inner)) for kind in inner]
        default = "" if field.is_required() else _yaml(field.get_default(call_default_factory=True))
        text = field.description or ("Which kind this is." if name == "kind" else _first_line(inner))
        keys.append(Key(name, _takes(schema["properties"][name], definitions), default, " ".join(text.split())))
    yield Part(where, " ".join((getdoc(model) or "").split()), tuple(keys))
    for kind, place in below:
        yield from _walk(kind, place)


def _first_line(inner: list[type[BaseModel]]) -> str:
    if len(inner) != 1:
        return "One of these kinds:" + ",".join(f" {_kind(model)}" for model in inner) + "." if inner else ""
    return (getdoc(inner[0]) or "").partition("\n")[0]


def _kind(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["kind"].annotation)[0]) if "kind" in model.model_fields else ""


def _suffix(annotation: Any, kind: type[BaseModel], inner: list[type[BaseModel]]) -> str:
    """[] for an item, NAME for a chosen name, and the kind where there are several."""
    origins = set(_origins(annotation))
    item = "[]" if origins & {list, tuple} else ".NAME" if dict in origins else ""
    return item + (f" (kind: {_kind(kind)})" if _kind(kind) and len(inner) > 1 else "")


def _origins(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is not None:
        yield origin
        for inner in get_args(annotation):
            yield from _origins(inner)


def _takes(prop: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON Schema property in words."""
    if "$ref" in prop:
        named = definitions[prop["$ref"].rpartition("/")[2]]
        return "a section" if "properties" in named else _takes(named, definitions)
    if "const" in prop:
        return f"`{prop['const']}`"
    if "enum" in prop:
        return ", ".join(f"`{value}`" if value else "nothing" for value in prop["enum"])
    options = prop.get("anyOf") or prop.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_takes(option, definitions) for option in options))
    match prop.get("type"):
        case "array":
            items = prop.get("items") or {"anyOf": prop.get("prefixItems", [])}
            return f"a list of: {_takes(items, definitions)}{_bounds(prop, 'minItems', 'maxItems', ' of them')}"
        case "object":
            values = prop.get("additionalProperties")
            return f"names with: {_takes(values, definitions)}" if isinstance(values, dict) else "a section"
        case "string":
            pattern = f" like `{prop['pattern']}`" if "pattern" in prop else ""
            return ("a path" if prop.get("format") == "path" else "text") + pattern
        case "integer":
            return "a whole number" + _bounds(prop, "minimum", "maximum")
        case "number":
            return "a number" + _bounds(prop, "minimum", "maximum")
        case "boolean":
            return "true or false"
        case "null":
            return "null"
    return "anything"


def _bounds(prop: dict[str, Any], low: str, high: str, unit: str = "") -> str:
    said = [
        f"{words} {prop[key]:g}{unit}"
        for key, words in (
            (low, "at least"),
            ("exclusiveMinimum", "above"),
            (high, "at most"),
            ("exclusiveMaximum", "below"),
            ("multipleOf", "a multiple of"),
        )
        if key in prop
    ]
    return f" ({', '.join(said)})" if said else ""


def _yaml(value: Any) -> str:
    import yaml

    plain = to_jsonable_python(value)
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return text.removesuffix("...").strip()


def markdown(chosen: list[Part]) -> str:
    """One heading a section, one row a key."""
    blocks = []
    for part in chosen:
        rows = [
            f"| `{key.name}` | {_cell(key.takes)} | {_cell(_default(key))} | {_cell(key.text)} |" for key in part.keys
        ]
        head = f"## {part.where or 'The sections'}\n{part.text}\n"
        blocks.append("\n".join([head, "| key | takes | default | what it does |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(blocks)


def _default(key: Key) -> str:
    if not key.default:
        return "required"
    if key.takes.startswith("a section") and key.default != "null":
        return "as below"
    return f"`{key.default}`" if len(key.default) <= 60 else "see `so8t config show`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def plain(chosen: list[Part]) -> str:
    """For a terminal: a key with its default, and what it does below it."""
    lines = []
    for part in chosen:
        lines += [f"{part.where or 'a config'}: {part.text}", ""]
        for key in part.keys:
            name = f"{_plain(part.where)}.{key.name}".lstrip(".")
            lines += [f"  {name}: {_default(key).replace('`', '')}", f"      {key.takes.replace('`', '')}"]
            lines += [f"      {key.text}"] if key.text else []
        lines.append("")
    return "\n".join(lines)
