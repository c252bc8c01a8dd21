"""The body of a request: read within its limit, and checked field by field."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import ConfigDict
from starlette.requests import ClientDisconnect, Request

from charloom.config import Section
from charloom.server.errors import ApiError
from charloom.server.memory import PER_BODY_BYTE, share_of
from charloom.validation import validated

B = TypeVar("B", bound="Body")


class Body(Section):
    """A JSON object of a client: no unknown fields, and no value of another type that happens to look right."""

    model_config = ConfigDict(strict=True)


async def body(request: Request, kind: type[B], most_bytes: int) -> B:
    """The checked body of a request.

    Raises:
        ApiError: if it has more than `most_bytes`, if there is no memory for it, or if it is not a JSON object.
        SettingsError: for the first field that is unknown or out of range.
    """
    data = await _read(request, most_bytes)
    share_of(request).take((PER_BODY_BYTE - 1) * len(data))
    values = _parsed(data)
    if not isinstance(values, dict):
        raise ApiError(400, f"the body must be a JSON object; found {_name(values)}")
    return validated(kind, values)


async def _read(request: Request, most_bytes: int) -> bytes:
    """The bytes of the body. One that is refused is read to its end too, so that the client reads the answer."""
    data, size, share = bytearray(), 0, share_of(request)
    refusal: ApiError | None = None
    try:
        async for chunk in request.stream():
            size += len(chunk)
            try:
                if size <= most_bytes and refusal is None:
                    share.take(len(chunk))
                    data += chunk
            except ApiError as error:
                refusal = error
            if size > most_bytes or refusal:
                data.clear()
                share.give_back()
    except ClientDisconnect:
        raise ApiError(400, "the client closed the connection before the body was complete") from None
    if size > most_bytes:
        raise ApiError(
            413, f"the body must have at most {most_bytes:,} bytes; found {size:,}; send less in one request"
        )
    if refusal:
        raise refusal
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
