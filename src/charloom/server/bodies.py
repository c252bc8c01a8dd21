"""The body of a request: read within its limit, and checked field by field."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import ConfigDict
from starlette.requests import ClientDisconnect, Request

from charloom.config import Section
from charloom.server.errors import ApiError
from charloom.validation import validated

B = TypeVar("B", bound="Body")


class Body(Section):
    """A JSON object of a client: no unknown fields, and no value of another type that happens to look right."""

    model_config = ConfigDict(strict=True)


async def body(request: Request, kind: type[B], most_bytes: int) -> B:
    """The checked body of a request.

    Raises:
        ApiError: if it has more than `most_bytes`, or is not a JSON object.
        SettingsError: for the first field that is unknown or out of range.
    """
    values = _parsed(await _read(request, most_bytes))
    if not isinstance(values, dict):
        raise ApiError(400, f"the body must be a JSON object; found {_name(values)}")
    return validated(kind, values)


async def _read(request: Request, most_bytes: int) -> bytes:
    """The bytes of the body. The rest of one that is too large is dropped, so that the client reads the answer."""
    data, size = bytearray(), 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= most_bytes:
                data += chunk
    except ClientDisconnect:
        raise ApiError(400, "the client closed the connection before the body was complete") from None
    if size > most_bytes:
        raise ApiError(
            413, f"the body must have at most {most_bytes:,} bytes; found {size:,}; send less in one request"
        )
    return bytes(data)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02X} at offset {error.start:,} is not"
        raise ApiError(400, f"the body must be JSON in UTF-8; {found}") from None
    except json.JSONDecodeError as error:
        raise ApiError(400, f"the body must be JSON; it is not: {error.msg} at character {error.pos:,}") from None
    except RecursionError:
        raise ApiError(400, "the body must be JSON of a few levels; it has too many") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise ApiError(400, "the body must hold numbers of a few digits; one has thousands") from None


def _name(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
