"""What a training process reported, as a client receives it: the shown names of texts stand in place of their paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from charloom.server.errors import ApiError
from charloom.server.wire import without_surrogates


def plan_answer(last: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The answer for the last line of a process that planned."""
    if last["event"] == "failed":
        raise ApiError(400, named(last["text"], names))
    if last["event"] != "plan":
        raise ApiError(503, "the server stopped before the plan was made; ask another one")
    notices = [named(notice, names) for notice in last["notices"]]
    known = {name: last[name] for name in ("planned", "characters")}
    return {**known, "preview": without_surrogates(last["preview"]), "notices": notices}


def with_names(event: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The event with the shown names of the texts in place of their paths."""
    text = event.get("text")
    if not isinstance(text, str):
        return {**event}
    return {**event, "text": named(text, names) if event["event"] == "notice" else without_surrogates(text)}


def named(text: str, names: Mapping[str, str]) -> str:
    """A message with the shown names."""
    for path, name in names.items():
        text = text.replace(path, name)
    return without_surrogates(text)
