"""A typed, lazy view of botocore's service models: operations, shapes, errors.

botocore resolves references and merges their traits; what is kept here is only what a *server* of the Query protocol
needs. Everything is computed at first use and never changes afterwards, so threads may share it: two of them may
compute the same value at once, which costs a little time and nothing else.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import botocore.loaders
import botocore.model
from msgspec import Struct


class Kind(StrEnum):
    """The types that a shape of a Query service can have."""

    STRUCTURE = "structure"
    LIST = "list"
    MAP = "map"
    STRING = "string"
    CHARACTER = "character"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    TIMESTAMP = "timestamp"
    BLOB = "blob"


class Blame(StrEnum):
    """``Error.Type`` on the wire: who has to change something."""

    SENDER = "Sender"
    RECEIVER = "Receiver"


class ErrorShape(Struct, frozen=True):
    """How an error looks on the wire. ``code`` is often not ``name``: for about half of the RDS model's."""

    name: str
    code: str
    status: int
    blame: Blame


class UnknownOperation(LookupError):
    """The service has no such operation."""


class UnknownError(LookupError):
    """The service has no such error shape."""


class Shape:
    """One use of a shape: traits of the reference (its name on the wire) and of the referred are already merged."""

    def __init__(self, raw: Any) -> None:
        metadata: Mapping[str, Any] = raw.metadata
        serialization: Mapping[str, Any] = raw.serialization
        self._raw = raw
        self.name: str = raw.name
        self.kind = Kind(raw.type_name)
        self.location_name: str | None = serialization.get("name")
        self.flattened: bool = serialization.get("flattened", False)
        self.timestamp_format: str = serialization.get("timestampFormat", "iso8601")
        self.sensitive: bool = metadata.get("sensitive", False)
        # Of a number its value, of a string its characters, of a blob its bytes, of a list or map its entries.
        self.minimum: float | None = metadata.get("min")
        self.maximum: float | None = metadata.get("max")
        self.pattern: str | None = metadata.get("pattern")
        self.enum: tuple[str, ...] = tuple(metadata.get("enum", ()))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.kind})>"


class Member(NamedTuple):
    name: str
    wire_name: str
    shape: Shape


class StructureShape(Shape):
    @cached_property
    def members(self) -> Mapping[str, Member]:
        """By the model's name, in the model's order. Resolved late, because shapes may contain themselves."""
        members = {}
        for name, raw in self._raw.members.items():
            shape = _shape(raw)
            members[name] = Member(name, _wire_name(name, shape), shape)
        return members

    @cached_property
    def required(self) -> tuple[str, ...]:
        return tuple(self._raw.required_members)


class ListShape(Shape):
    @cached_property
    def member(self) -> Shape:
        return _shape(self._raw.member)

    @property
    def element_name(self) -> str:
        return self.member.location_name or "member"


class MapShape(Shape):
    @cached_property
    def key(self) -> Shape:
        return _shape(self._raw.key)

    @cached_property
    def value(self) -> Shape:
        return _shape(self._raw.value)

    @property
    def key_name(self) -> str:
        return self.key.location_name or "key"

    @property
    def value_name(self) -> str:
        return self.value.location_name or "value"


def _shape(raw: Any) -> Shape:
    match raw.type_name:
        case "structure":
            return StructureShape(raw)
        case "list":
            return ListShape(raw)
        case "map":
            return MapShape(raw)
        case _:
            return Shape(raw)


def _wire_name(name: str, shape: Shape) -> str:
    """A flattened list has no element of its own: its entries' name stands in its place."""
    if isinstance(shape, ListShape) and shape.flattened and shape.member.location_name is not None:
        return shape.member.location_name
    return shape.location_name or name


class Operation:
    """One call of the API. ``input`` and ``output`` are None where the model has no shape for them."""

    def __init__(self, raw: Any) -> None:
        self.name: str = raw.name
        self.input = None if raw.input_shape is None else StructureShape(raw.input_shape)
        self.output = None if raw.output_shape is None else StructureShape(raw.output_shape)
        self.result_wrapper: str | None = (
            None if raw.output_shape is None else raw.output_shape.serialization.get("resultWrapper")
        )
        self.error_names: tuple[str, ...] = tuple(shape.name for shape in raw.error_shapes)

    def __repr__(self) -> str:
        return f"<Operation {self.name}>"


class Service:
    """One service's API."""

    def __init__(self, raw: botocore.model.ServiceModel) -> None:
        self._raw = raw
        self._operations: dict[str, Operation] = {}
        metadata: Mapping[str, Any] = raw.metadata
        if metadata.get("protocol") != "query":
            raise ValueError(f"{raw.service_name} does not speak the Query protocol but {metadata.get('protocol')}")
        self.name: str = raw.service_name
        self.api_version: str = metadata["apiVersion"]
        # Older models leave it out; then it is made of the endpoint's name as AWS's own are.
        self.xml_namespace: str = metadata.get(
            "xmlNamespace", f"http://{metadata['endpointPrefix']}.amazonaws.com/doc/{self.api_version}/"
        )

    def __repr__(self) -> str:
        return f"<Service {self.name} {self.api_version}>"

    @cached_property
    def operation_names(self) -> tuple[str, ...]:
        return tuple(self._raw.operation_names)

    def operation(self, name: str) -> Operation:
        """Raises :class:`UnknownOperation`. Names are case-sensitive, as at AWS."""
        found = self._operations.get(name)
        if found is not None:
            return found
        # Asked before botocore is: it would keep a cache entry for every name that a client makes up.
        if name not in self.operation_names:
            raise UnknownOperation(name)
        return self._operations.setdefault(name, Operation(self._raw.operation_model(name)))

    @cached_property
    def errors(self) -> Mapping[str, ErrorShape]:
        """Every modelled error by the name of its shape."""
        return {raw.name: _error_shape(raw) for raw in self._raw.error_shapes}

    def error(self, name: str) -> ErrorShape:
        """Raises :class:`UnknownError`."""
        try:
            return self.errors[name]
        except KeyError:
            raise UnknownError(f"{self.name} has no error {name!r}") from None


def _error_shape(raw: Any) -> ErrorShape:
    error: Mapping[str, Any] = raw.metadata.get("error", {})
    status: int = error.get("httpStatusCode", 400)
    is_sender = error.get("senderFault", status < 500)
    return ErrorShape(raw.name, error.get("code", raw.name), status, Blame.SENDER if is_sender else Blame.RECEIVER)


@lru_cache
def load_service(name: str) -> Service:
    """The newest model of ``name`` (``"rds"``) that botocore ships. Takes tens of milliseconds the first time."""
    # Not the default search path: AWS_DATA_PATH and ~/.aws/models belong to clients of AWS, and a file left there
    # must not change the API that this server offers.
    loader = botocore.loaders.Loader(
        extra_search_paths=[botocore.loaders.Loader.BUILTIN_DATA_PATH], include_default_search_paths=False
    )
    return Service(botocore.model.ServiceModel(loader.load_service_model(name, "service-2"), name))
