"""The catalogue: every parameter of `core.params` as one flat, searchable list.

The editor, the `params` command, the checks, the search space and the JSON schema read the models through here.
"""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import annotated_types
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from core.params import SEARCHABLE_TABLES, TABLES, Doc, Range
from core.values import Scalar, number, read_toml, toml_value

Kind = Literal["bool", "int", "float", "text", "choice", "list", "mapping"]

MOST_VALUES = 100_000
"""Values of one range that are listed at most, as many as a search may have trials; one with more counts as endless."""


class UnknownParameterError(KeyError):
    """No parameter has this name; `nearest` are the closest that exist."""

    def __init__(self, key: str, nearest: tuple[str, ...]) -> None:
        super().__init__(key)
        self.key = key
        self.nearest = nearest

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(self.nearest)}?" if self.nearest else ""
        return f"there is no parameter {self.key!r}{hint}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: where it stands, what it takes, what it means."""

    table: str
    name: str
    kind: Kind
    default: Any
    required: bool
    optional: bool
    """True when the parameter may be left unset (its value is then None)."""
    choices: tuple[Scalar, ...]
    """The values allowed, empty where any value of the kind within the bounds is."""
    low: float | None
    high: float | None
    low_open: bool
    """True when `low` itself is not allowed."""
    high_open: bool
    help: str
    doc: Doc
    field: FieldInfo

    @property
    def key(self) -> str:
        """The full name, `table.name`."""
        return f"{self.table}.{self.name}"

    @property
    def searchable(self) -> bool:
        return (
            self.table in SEARCHABLE_TABLES
            and self.kind not in ("list", "mapping")
            and self.name not in ("dataset", "trust_remote_code")
        )

    @property
    def _of_numbers(self) -> bool:
        """Whether it is a list of numbers."""
        return list[float] in _arms(self.field.annotation)

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the parameter has an effect among `values` (full key → value; a missing key has its default)."""
        for when in self.doc.when:
            value = values[when.key] if when.key in values else find(when.key).default
            if value not in when.values:
                return False
            if not find(when.key).applies(values):
                return False
        return True

    def allowed(self) -> str:
        """What the parameter takes, in words: its choices or its kind and bounds."""
        if self.choices:
            words = ", ".join("not set" if c is None else toml_value(c) for c in self.choices)
            return f"one of {words}" + (" or not set" if self.optional else "")
        kinds = {
            "bool": "true or false",
            "int": "a whole number",
            "float": "a number",
            "text": "text",
            "list": "a list of numbers" if self._of_numbers else "text or a list of texts",
            "mapping": "a table of settings, as { name = value }",
        }
        words = kinds[self.kind] + self._bounds()
        return words + (" or not set" if self.optional else "")

    def _bounds(self) -> str:
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.low_open else 'at least'} {number(self.low)}")
        if self.high is not None:
            parts.append(f"{'below' if self.high_open else 'at most'} {number(self.high)}")
        return (" " + ", ".join(parts)) if parts else ""

    def refusal(self, value: Any) -> tuple[str, str]:
        """What is told of a value that is not allowed, and what is; of one that other tools take a reason says both."""
        for name, reason in self.doc.refused:
            if name == value:
                return f"{toml_value(value)} is not allowed: {reason}", ""
        if value == "" and self.required:
            return "is missing", self.help.split(". ")[0].split(": ")[-1]
        return f"{toml_value(value)} is not allowed", self.allowed()

    def validate(self, value: Any) -> Any:
        """Return `value` as the parameter's type.

        Raises:
            ValueError: the value is not allowed; the message says what would be.
        """
        try:
            return _adapter(self.key).validate_python(value)
        except ValidationError:
            raise ValueError(": ".join(filter(None, self.refusal(value)))) from None

    def parse(self, text: str) -> Any:
        """Read a value as a person types it on a command line or in a form; empty text means "not set".

        Raises:
            ValueError: the text is no value of this parameter; the message says what would be.
        """
        stripped = text.strip()
        # "none" is a choice of its own for some parameters: search.stopping.
        unset = stripped == "" or stripped.lower() in ("none", "null") or stripped == "not set"
        if unset and stripped not in self.choices:
            if self.optional:
                return None
            if self.kind == "text" and stripped == "":
                return self.validate("")
            raise ValueError(f"a value is needed: {self.allowed()}")
        return self.validate(self._read(stripped))

    def _read(self, text: str) -> Any:
        if self.kind == "bool":
            named = {
                "true": True,
                "yes": True,
                "on": True,
                "false": False,
                "no": False,
                "off": False,
            }
            return named.get(text.lower(), text)
        if self.choices:
            return next((c for c in self.choices if str(c) == text), text)
        if self.kind == "int":
            return _int(text)
        if self.kind == "float":
            return _float(text)
        if self.kind == "list":
            if text.startswith("["):
                return read_toml(text)
            if self._of_numbers:
                return [_float(part) for part in text.split(",")]
            if self.table == "data":
                return text
            if text in ("auto", "cpu"):
                return text
            return [
                int(part) if part.strip().isdigit() else part.strip() for part in text.split(",")
            ]
        if self.kind == "mapping":
            return read_toml(text)
        return text


def _int(text: str) -> Any:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        try:
            as_float = float(text)
        except ValueError:
            return text
        return int(as_float) if as_float.is_integer() else text


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _arms(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def _kind(annotation: Any) -> tuple[Kind, bool, tuple[Scalar, ...]]:
    """The kind of an annotation, whether it may be None, and its choices."""
    arms = _arms(annotation)
    optional = type(None) in arms
    rest = [a for a in arms if a is not type(None)]
    origins = [typing.get_origin(a) or a for a in rest]
    if list in origins:
        return "list", optional, ()
    if dict in origins:
        return "mapping", optional, ()
    if origins == [Literal]:
        return "choice", optional, typing.get_args(rest[0])
    names: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}
    return names[rest[0]], optional, ()


def _describe(table: str, name: str, field: FieldInfo) -> Parameter:
    kind, optional, choices = _kind(field.annotation)
    low = high = None
    low_open = high_open = False
    doc = Doc(name)
    for item in field.metadata:
        if isinstance(item, Doc):
            doc = item
        elif isinstance(item, annotated_types.Ge):
            low = typing.cast(float, item.ge)
        elif isinstance(item, annotated_types.Gt):
            low, low_open = typing.cast(float, item.gt), True
        elif isinstance(item, annotated_types.Le):
            high = typing.cast(float, item.le)
        elif isinstance(item, annotated_types.Lt):
            high, high_open = typing.cast(float, item.lt), True
    return Parameter(
        table=table,
        name=name,
        kind=kind,
        default=None if field.is_required() else field.get_default(),
        required=field.is_required(),
        optional=optional,
        choices=choices,
        low=low,
        high=high,
        low_open=low_open,
        high_open=high_open,
        help=field.description or "",
        doc=doc,
        field=field,
    )


@cache
def parameters() -> tuple[Parameter, ...]:
    """Every parameter of a profile, by table, in the order in which they are shown."""
    return tuple(
        _describe(table, name, field)
        for table, model in TABLES.items()
        for name, field in model.model_fields.items()
    )


@cache
def _index() -> dict[str, Parameter]:
    return {p.key: p for p in parameters()}


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    field = _index()[key].field
    annotation: Any = field.annotation
    for item in field.metadata:
        annotation = typing.Annotated[annotation, item]
    from pydantic import ConfigDict

    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def find(key: str) -> Parameter:
    """The parameter named `key`: its full name `table.name`, or its name alone where it is a searchable one.

    Raises:
        UnknownParameterError: there is none; the error carries the nearest names.
    """
    index = _index()
    if key in index:
        return index[key]
    if "." not in key:
        tables = [
            t
            for t in (*SEARCHABLE_TABLES, "memory", "resources", "search", "profile")
            if f"{t}.{key}" in index
        ]
        if tables:
            return index[f"{tables[0]}.{key}"]
    raise UnknownParameterError(key, nearest(key))


def nearest(key: str, among: Iterable[str] | None = None, most: int = 2) -> tuple[str, ...]:
    """The known names that `key` is probably a slip of, best first (by default full parameter names)."""
    if among is not None:
        return tuple(difflib.get_close_matches(key, list(among), n=most, cutoff=0.6))
    name = key.rpartition(".")[2]
    by_name: dict[str, list[str]] = {}
    for p in parameters():
        by_name.setdefault(p.name, []).append(p.key)
    close = difflib.get_close_matches(name, list(by_name), n=most, cutoff=0.6)
    return tuple(k for c in close for k in by_name[c])[:most]


def searchable() -> tuple[Parameter, ...]:
    """The parameters that a search space may name."""
    return tuple(p for p in parameters() if p.searchable)


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a profile, for editors that complete and check TOML."""
    tables: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for table, model in TABLES.items():
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        for name, entry in schema["properties"].items():
            if table != "search" or name != "space":
                works = find(f"{table}.{name}").doc.works
                if works:
                    entry["description"] += f" Works: {works}."
        tables[table] = schema
    space = tables["search"]["properties"]["space"]
    item = space.pop("additionalProperties")
    space["properties"] = {p.name: item for p in searchable()}
    space["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tunedeck profile",
        "type": "object",
        "properties": tables,
        "required": ["model", "data"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def space_problem(parameter: Parameter, entry: list[Scalar] | Range) -> str | None:
    """What is wrong with searching `parameter` over `entry`, as a sentence; None when it is right."""
    if not parameter.searchable:
        return f"{parameter.key} cannot be searched"
    if isinstance(entry, Range):
        return _range_problem(parameter, entry)
    if not entry:
        return "the list is empty"
    for value in entry:
        try:
            parameter.validate(value)
        except ValueError as error:
            return str(error)
    if len({toml_value(v) for v in entry}) != len(entry):
        return f"the list holds a value twice: {toml_value(entry)}"
    return None


def _range_problem(parameter: Parameter, entry: Range) -> str | None:
    if parameter.kind not in ("int", "float"):
        return f"{parameter.name} takes {parameter.allowed()}: search it by a list, not by a range"
    if entry.low >= entry.high:
        return f"low {number(entry.low)} must be below high {number(entry.high)}"
    if entry.scale == "log" and entry.low <= 0:
        return "a log range must start above 0"
    if entry.step is not None:
        wrong = _step_problem(parameter, entry, entry.step)
        if wrong:
            return wrong
    for end in (entry.low, entry.high):
        value: int | float = end
        if parameter.kind == "int":
            if not float(end).is_integer():
                return f"{number(end)} is no whole number"
            value = int(end)
        try:
            parameter.validate(value)
        except ValueError as error:
            return str(error)
    return None


def _step_problem(parameter: Parameter, entry: Range, step: float) -> str | None:
    if entry.scale == "log":
        return "step goes with a linear range only"
    if parameter.kind == "int" and not step.is_integer():
        return f"step {number(step)} is no whole number"
    width = entry.high - entry.low
    if step > width * (1 + 1e-9):
        return f"step {number(step)} is larger than the range: only {number(entry.low)} is in it"
    if width / step >= MOST_VALUES:
        return f"step {number(step)} makes more than {MOST_VALUES} values: leave it out, or make it larger"
    return None
