"""Parameters of database servers as RDS has them: what there is, what a value may be, and formulas.

A formula is arithmetic over an instance's memory (RDS user guide, "Specifying DB parameters"): ``{DBInstanceClassMemory
/32768}``, ``GREATEST({DBInstanceClassMemory/63963136*1024},65536)``. All of it is in whole numbers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from math import log2

from msgspec import Struct

MEMORY = "DBInstanceClassMemory"

MAX_VALUE_LENGTH = 8192
# Deep enough for anything sensible, and far from Python's own limit.
_MAX_DEPTH = 20
_SYMBOL = re.compile(r"\s*([A-Za-z]+|[0-9]{1,18}|[(){},*/+-])")
_FORMULA = re.compile(r"\s*(\{|(greatest|least|sum|log)\s*\()", re.IGNORECASE)


class ApplyType(StrEnum):
    """``static``: read once, when a server starts."""

    STATIC = "static"
    DYNAMIC = "dynamic"


class ApplyMethod(StrEnum):
    IMMEDIATE = "immediate"
    PENDING_REBOOT = "pending-reboot"


class ApplyStatus(StrEnum):
    """``ParameterApplyStatus`` of an instance's parameter group."""

    IN_SYNC = "in-sync"
    APPLYING = "applying"
    PENDING_REBOOT = "pending-reboot"
    FAILED = "failed-to-apply"


class DataType(StrEnum):
    BOOLEAN = "boolean"
    FLOAT = "float"
    INTEGER = "integer"
    LIST = "list"
    STRING = "string"


class ParameterInfo(Struct, frozen=True, kw_only=True):
    """One parameter of a family, as its servers describe it. Numbers are in the server's own unit for it."""

    name: str
    description: str
    data_type: DataType
    apply_type: ApplyType
    is_modifiable: bool
    default: str | None = None  # the engine's
    system_value: str | None = None  # what the default group has instead
    minimum: str | None = None
    maximum: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def allowed_values(self) -> str | None:
        """As RDS writes it: ``0,1``, ``16-1073741823``, ``minimal,replica,logical``."""
        if self.data_type is DataType.BOOLEAN:
            return "0,1"
        if self.choices:
            return ",".join(self.choices)
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum}-{self.maximum}"
        return None


FORCE_TLS = "rds.force_ssl"

# Parameters of RDS's own, which its servers have and stock ones do not: the service itself acts on them.
SERVICE_PARAMETERS: Mapping[str, ParameterInfo] = {
    FORCE_TLS: ParameterInfo(
        name=FORCE_TLS,
        description="Refuse connections that do not use TLS.",
        data_type=DataType.BOOLEAN,
        apply_type=ApplyType.DYNAMIC,
        is_modifiable=True,
        default="0",
    ),
    "rds.logical_replication": ParameterInfo(
        name="rds.logical_replication",
        description="Allow logical replication. It always is, here.",
        data_type=DataType.BOOLEAN,
        apply_type=ApplyType.STATIC,
        is_modifiable=True,
        default="1",
    ),
}


class ParameterValue(Struct, frozen=True):
    value: str
    apply_method: ApplyMethod


def is_on(parameter: ParameterValue | None) -> bool:
    return parameter is not None and parameter.value.lower() in ("1", "on", "true")


class InvalidValue(ValueError):
    """The message says what is wrong with the value, and repeats it: parameters are not secret."""


def is_formula(value: str) -> bool:
    return _FORMULA.match(value) is not None


def evaluate(value: str, variables: Mapping[str, int]) -> str:
    """The number that a formula stands for; any other value as it is. Raises ``InvalidValue``."""
    return str(_Formula(value, variables).result()) if is_formula(value) else value


def check(info: ParameterInfo, value: str) -> None:
    """Raises ``InvalidValue`` for a value that such a parameter cannot have, whatever the instance."""
    if len(value) > MAX_VALUE_LENGTH or any(character in value for character in "\0\r\n"):
        raise InvalidValue(f"Invalid parameter value for: {info.name}. It is too long, or has more than one line.")
    if is_formula(value):
        if info.data_type is not DataType.INTEGER:
            raise InvalidValue(f"Invalid parameter value: {value} for: {info.name}. A formula gives an integer.")
        evaluate(value, {MEMORY: 1024**3})
        return
    if not _CHECKS[info.data_type](info, value):
        allowed = f" Allowed values are: {info.allowed_values}." if info.allowed_values else ""
        raise InvalidValue(f"Invalid parameter value: {value} for: {info.name}.{allowed}")


def _is_boolean(_info: ParameterInfo, value: str) -> bool:
    return value.lower() in ("0", "1", "on", "off", "true", "false")


def _is_integer(info: ParameterInfo, value: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,19}", value) is not None and _is_between(info, value)


def _is_float(info: ParameterInfo, value: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,19}(\.[0-9]{1,19})?(e[+-]?[0-9]{1,3})?", value) is not None and _is_between(
        info, value
    )


def _is_between(info: ParameterInfo, value: str) -> bool:
    low, high = info.minimum, info.maximum
    return (low is None or float(low) <= float(value)) and (high is None or float(value) <= float(high))


def _is_choice(info: ParameterInfo, value: str) -> bool:
    """Of a list of names each has to be one of the choices; nothing at all is a list, too."""
    words = [word.strip().lower() for word in value.split(",") if word.strip()]
    return {*words} <= {choice.lower() for choice in info.choices}


def _is_text(info: ParameterInfo, value: str) -> bool:
    return not info.choices or value.lower() in {choice.lower() for choice in info.choices}


_CHECKS: Mapping[DataType, Callable[[ParameterInfo, str], bool]] = {
    DataType.BOOLEAN: _is_boolean,
    DataType.FLOAT: _is_float,
    DataType.INTEGER: _is_integer,
    DataType.LIST: _is_choice,
    DataType.STRING: _is_text,
}


class _Formula:
    """Recursive descent over the symbols of one formula."""

    def __init__(self, text: str, variables: Mapping[str, int]) -> None:
        self._text = text
        self._variables = {name.lower(): number for name, number in variables.items()}
        self._symbols = self._split(text)
        self._depth = 0

    def _split(self, text: str) -> list[str]:
        symbols, position = [], 0
        while position < len(text.rstrip()):
            match = _SYMBOL.match(text, position)
            if match is None:
                raise self._wrong()
            symbols.append(match[1])
            position = match.end()
        return symbols[::-1]  # a stack

    def result(self) -> int:
        number = self._sum()
        if self._symbols:
            raise self._wrong()
        return number

    def _sum(self) -> int:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._wrong()
        number = self._product()
        while self._peek() in ("+", "-"):
            number = number + self._product() if self._next() == "+" else number - self._product()
        self._depth -= 1
        return number

    def _product(self) -> int:
        number = self._factor()
        while self._peek() in ("*", "/"):
            operator, other = self._next(), self._factor()
            if operator == "/" and other == 0:
                raise self._wrong()
            number = number * other if operator == "*" else number // other
        return number

    def _factor(self) -> int:
        symbol = self._next()
        if symbol.isdigit():
            return int(symbol)
        if symbol in "({":
            number = self._sum()
            self._expect(")" if symbol == "(" else "}")
            return number
        if symbol.lower() in _FUNCTIONS:
            return self._call(symbol.lower())
        if symbol.lower() in self._variables:
            return self._variables[symbol.lower()]
        raise self._wrong()

    def _call(self, name: str) -> int:
        self._expect("(")
        arguments = [self._sum()]
        while self._peek() == ",":
            self._next()
            arguments.append(self._sum())
        self._expect(")")
        if name == "log" and (len(arguments) != 1 or arguments[0] < 1):
            raise self._wrong()
        return _FUNCTIONS[name](arguments)

    def _peek(self) -> str:
        return self._symbols[-1] if self._symbols else ""

    def _next(self) -> str:
        if not self._symbols:
            raise self._wrong()
        return self._symbols.pop()

    def _expect(self, symbol: str) -> None:
        if self._next() != symbol:
            raise self._wrong()

    def _wrong(self) -> InvalidValue:
        return InvalidValue(f"Invalid parameter value: {self._text}. It is not a formula over {MEMORY}.")


_FUNCTIONS: Mapping[str, Callable[[Sequence[int]], int]] = {
    "greatest": max,
    "least": min,
    "sum": sum,
    "log": lambda arguments: int(log2(arguments[0])),
}
