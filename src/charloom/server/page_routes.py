"""The routes of the web page that every server has: the page itself, facts about a model, and how it reads a text.

Training has routes of its own (`training_routes.py`), which only `charloom app` has.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import Field
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from charloom.checkpoint import ModelFolder, facts, model_card, save_model
from charloom.data.vocabulary import UnknownPolicy
from charloom.errors import SettingsError, TextError
from charloom.evaluation import heat
from charloom.inference.sequence import TokenLogprobs
from charloom.inference.token_texts import TokenPlaces
from charloom.model import Model
from charloom.server.app_folder import temporary
from charloom.server.bodies import Body, body
from charloom.server.completions import LOWEST_LOGPROB
from charloom.server.limits import ServerLimits
from charloom.server.memory import PER_LOGPROB, share_of
from charloom.server.routes import as_json, unless_gone
from charloom.server.served_models import LoadedModel, ServedModels
from charloom.server.wire import without_surrogates
from charloom.trace import LAYERS

STATIC = Path(__file__).parent / "static"

POLICY = {
    "cache-control": "no-cache",
    "content-security-policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of the page: only scripts and styles of this server, and no other page may show it in a frame. A prompt in
the address stays in this browser.
"""

SHOWN = 10
"""Tokens that the page shows for each position."""

RANKED = 20
"""Tokens for each position among which the rank of the actual one is looked up."""


class LookRequest(Body):
    """A text to read."""

    model: str | None = Field(None, description="the name of a model; by default the first")
    text: str = Field(description="the text")
    unknown: UnknownPolicy = Field("error", description="characters that the model does not know")


class UnitRequest(LookRequest):
    """A unit whose values are wanted while the model reads a text."""

    layer: int = Field(0, ge=0, description="the layer, from 0 at the bottom")
    unit: int = Field(0, ge=0, description="the unit, from 0")
    array: str = Field("hidden", description="which of its values, such as hidden, cell or forget_gate")


class PageRoutes:
    """The functions behind these routes. folder: where this server keeps its runs; None if it does not train."""

    def __init__(self, models: ServedModels, limits: ServerLimits, folder: Path | None = None) -> None:
        self._models, self._limits, self._folder = models, limits, folder
        self._working = asyncio.Lock()  # one heavy task at a time: it takes much memory
        self._reports: WeakKeyDictionary[LoadedModel, dict[str, Any] | None] = WeakKeyDictionary()

    async def page(self) -> Response:
        """The page."""
        return FileResponse(STATIC / "index.html", headers=POLICY)

    async def state(self) -> Response:
        """What the page needs first: the models, whether it may train, and the colours of surprise."""
        models = [{"name": model.name, "loaded": model.is_loaded} for model in self._models.models.values()]
        return as_json(
            {
                "training": self._folder is not None,
                "folder": without_surrogates(str(self._folder)) if self._folder else None,
                "models": models,
                "colours": [heat.colours(level) for level in range(heat.LEVELS)],
            }
        )

    async def model(self, name: str) -> Response:
        """The facts about a model, and its card."""
        loaded = self._models.find(name).current
        folder = loaded.model.folder
        size = folder.architecture
        return as_json(
            {
                "name": name,
                "facts": {label: _readable(value) for label, value in facts(folder).items()},
                "card": without_surrogates(model_card(folder)),
                "folder": without_surrogates(str(folder.place)),
                "layers": size.layers,
                "hidden": size.hidden,
                "arrays": _arrays(folder),
                "unit": folder.vocabulary.unit,
                "prompt": without_surrogates(str(folder.metadata.get("prompt", ""))),
            }
        )

    async def compressors(self, name: str) -> Response:
        """The loss of the model on the held-out text of its run, beside those of xz and PPMd; null without a run."""
        loaded = self._models.find(name).current
        async with self._working:
            if loaded not in self._reports:
                self._reports[loaded] = await asyncio.to_thread(_report, loaded.model)
        return as_json(self._reports[loaded])

    async def download(self, name: str) -> Response:
        """The model folder as a .zip."""
        loaded = self._models.find(name).current
        async with self._working:
            packed = await asyncio.to_thread(_zipped, loaded.model.folder, name, self._folder)
        gone = BackgroundTask(packed.unlink, missing_ok=True)
        headers = {"content-disposition": "attachment"}
        return FileResponse(packed, media_type="application/zip", headers=headers, background=gone)

    async def look(self, request: Request) -> Response:
        """How probable each token of a text is, and what was more probable."""
        asked = await body(request, LookRequest, self._limits.body_bytes)
        served = self._models.find(asked.model)
        loaded = served.current
        ids = await asyncio.to_thread(self._ids, loaded, asked)
        share_of(request).take(PER_LOGPROB * (1 + RANKED) * len(ids))
        top = min(RANKED, loaded.model.vocabulary.size)
        made = loaded.model.requests(1, [ids], seed=0)
        call = await served.submit(loaded, [replace(made[0], length=None, tokens=0, prompt_logprobs=top)])
        try:
            news = await unless_gone(request, call.whole())
        finally:
            call.cancel()
        return as_json(_looked(loaded, ids, news[0].prompt_logprobs))

    async def unit(self, request: Request) -> Response:
        """The value of one unit after each token of a text."""
        asked = await body(request, UnitRequest, self._limits.body_bytes)
        loaded = self._models.find(asked.model).current
        ids = await asyncio.to_thread(self._ids, loaded, asked)
        _check_unit(loaded.model.folder, asked)
        async with self._working:
            values = await asyncio.to_thread(partial(_values, loaded, asked))
        return as_json({"values": [value if math.isfinite(value) else None for value in values[-len(ids) :]]})

    def _ids(self, loaded: LoadedModel, asked: LookRequest) -> list[int]:
        """The token ids of the text.

        Raises:
            TextError: if there are none, or too many.
        """
        ids, most = loaded.model.tokenize(asked.text, asked.unknown), self._limits.look_tokens
        if not 1 <= len(ids) <= most:
            raise TextError(f"`text` must have from 1 to {most:,} tokens to be shown; found {len(ids):,}")
        return ids


def _readable(value: Any) -> str:
    """A fact as text. A model folder from elsewhere may hold anything."""
    return without_surrogates(f"{value:,}" if isinstance(value, int) else str(value))


def _report(model: Model) -> dict[str, Any] | None:
    try:
        return model.evaluate().to_json()
    except (SettingsError, TextError):
        return None


def _zipped(folder: ModelFolder, name: str, place: Path | None) -> Path:
    """A temporary .zip of what is loaded, so the files belong together even if the run goes on.

    place: the folder of the app; None for the system's temporary folder.
    """
    inside = None if place is None else temporary(place)
    number, packed = tempfile.mkstemp(".zip", "charloom-", inside)
    with (
        os.fdopen(number, "wb") as content,
        tempfile.TemporaryDirectory(prefix="charloom-", dir=inside) as model,
        zipfile.ZipFile(content, "w") as archive,
    ):
        save_model(Path(model) / "model", folder)
        for file in sorted((Path(model) / "model").iterdir()):
            archive.write(file, f"{folder_name(name)}/{file.name}")
    return Path(packed)


def folder_name(name: str) -> str:
    """The name of a model as the name of a folder, on any system."""
    return "".join(each if each.isalnum() or each in "-_" else "-" for each in name)[:100]


def _looked(loaded: LoadedModel, ids: list[int], found: list[TokenLogprobs]) -> dict[str, Any]:
    """What the page shows. A first token that nothing predicts has no log-probability."""
    model, names = loaded.model, loaded.names
    places = TokenPlaces(model.vocabulary, model.separator_text)
    unpredicted = [None] * (len(ids) - len(found))
    return {
        "text": without_surrogates(model.detokenize(ids)),
        "places": [places.push(token) for token in ids],
        "nats": [*unpredicted, *(-max(each.logprob, LOWEST_LOGPROB) for each in found)],
        "ranks": [*unpredicted, *map(_rank, found)],
        "top": [
            *unpredicted,
            *([(names[token], max(logprob, LOWEST_LOGPROB)) for token, logprob in each.top[:SHOWN]] for each in found),
        ],
    }


def _rank(found: TokenLogprobs) -> int | None:
    """The rank of the actual token, from 1; None after the last one that is looked at."""
    return next((rank for rank, (token, _) in enumerate(found.top, 1) if token == found.token), None)


def _arrays(folder: ModelFolder) -> list[str]:
    """The names of the values of a unit."""
    return [array.removesuffix("_TH") for array in LAYERS[folder.architecture.cell]._fields]


def _check_unit(folder: ModelFolder, asked: UnitRequest) -> None:
    size, names = folder.architecture, _arrays(folder)
    if asked.layer >= size.layers or asked.unit >= size.hidden:
        raise SettingsError(
            f"`layer` and `unit` must be below {size.layers} and {size.hidden}; got {asked.layer} and {asked.unit}"
        )
    if asked.array not in names:
        raise SettingsError(f"`array` must be one of {', '.join(names)}; got {asked.array!r}")


def _values(loaded: LoadedModel, asked: UnitRequest) -> list[float]:
    values: list[float] = []
    for chunk in loaded.model.trace_chunks(asked.text, unknown=asked.unknown):
        values += getattr(chunk.layers[asked.layer], f"{asked.array}_TH")[:, asked.unit].tolist()
    return values
