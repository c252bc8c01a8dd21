"""Values checked by pydantic, with the first mistake as one line."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from charloom.errors import SettingsError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

S = TypeVar("S", bound=BaseModel)

MUST = {
    "greater_than_equal": "be at least {ge}",
    "greater_than": "be above {gt}",
    "less_than_equal": "be at most {le}",
    "less_than": "be below {lt}",
    "finite_number": "be a finite number",
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_parsing_size": "be a whole number with fewer digits",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
    "bool_type": "be True or False",
    "bool_parsing": "be True or False",
    "string_type": "be a string",
}
"""What must hold, for those kinds of pydantic errors that have longer texts of their own."""

SAME_MEANING = {
    "base": "base_model",
    "from_": "base_model",
    "resume": "charloom.resume",
    "on_event": "report",
    "callback": "report",
    "protocol": "windows",
}
"""Names of the command line and of other libraries, and what they are called here."""


def validated(kind: type[S], values: Mapping[str, Any]) -> S:
    """`kind(**values)`, with the first mistake as one line.

    Raises:
        SettingsError: with the name of the setting, what must hold and what was found.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _in_one_line(error.errors(include_url=False)[0], kind) from None


def check_names(given: Iterable[str], known: Collection[str], others: Iterable[str] | None = None) -> None:
    """Checks that every name is known.

    Args:
        given: the names of the arguments in a call.
        known: names that are accepted.
        others: names that an error may suggest too.

    Raises:
        SettingsError: for the first unknown name.
    """
    for name in given:
        if name not in known:
            raise unknown_name(name, [*known, *(others or ())])


def unknown_name(name: str, known: Collection[str]) -> SettingsError:
    """The error for a name that is not among those known."""
    meant = SAME_MEANING.get(name)
    near = [meant] if meant in known else difflib.get_close_matches(name, known, 1)
    return SettingsError(f"`{name}` is an unknown name; {f'did you mean `{near[0]}`?' if near else 'leave it out'}")


def _in_one_line(error: ErrorDetails, kind: type[BaseModel]) -> SettingsError:
    """An error of pydantic in charloom's words; the message begins with the setting's name."""
    name = next((part for part in reversed(error["loc"]) if isinstance(part, str)), kind.__name__)
    if error["type"] == "value_error":
        return SettingsError(error["msg"].removeprefix("Value error, "))
    if error["type"] == "missing":
        return SettingsError(f"`{name}` must be given; it is missing")
    if error["type"] == "extra_forbidden":
        return unknown_name(name, kind.model_fields)
    return SettingsError(f"`{name}` must {_must(error)}; got {error['input']!r}")


def _must(error: ErrorDetails) -> str:
    if error["type"] in MUST:
        bounds = {sign: shown_number(value) for sign, value in error.get("ctx", {}).items()}
        return MUST[error["type"]].format(**bounds)
    message = error["msg"]
    return message.removeprefix("Input should ") if message.startswith("Input should ") else f"be valid: {message}"


def shown_number(value: Any) -> str:
    """A default or a bound: digits in groups, a large power of two as a power, any other value unchanged."""
    if isinstance(value, int) and value > 2**32:
        return f"2^{value.bit_length() - 1}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
