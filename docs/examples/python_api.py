"""All that `import charloom` offers, in one program: python docs/examples/python_api.py FOLDER [CHECKPOINT]

It trains tiny models in the new folder FOLDER, in seconds. CHECKPOINT is a PyTorch model of a character-level lesson.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from multiprocessing import get_context
from pathlib import Path

import charloom

VERSES = [f"Roses are red,\nviolets are {word}." for word in ("blue", "here", "late", "true")] * 20


def train(folder: Path) -> charloom.Model:
    """A model of verses: planned, trained, stopped, resumed and fine-tuned."""
    planned = charloom.plan(texts=VERSES, records="file", minutes=0.01)
    print("plan:", {choice.setting: choice.value for choice in planned.choices if choice.setting != "seq_length"})

    settings: charloom.SettingsKeywords = {"records": "file", "hidden": 16, "batch_size": 8, "steps": 400}
    steps = iter(range(1, 1000))
    stopped = charloom.train(texts=VERSES, out=folder / "verses", stop=lambda: next(steps) == 20, **settings)
    print("stopped at step", stopped.metadata["step"])

    events: list[charloom.Event] = []
    resumed = charloom.resume(folder / "verses", steps=300, report=events.append)
    print("resumed:", [type(event).__name__ for event in events][-1], resumed)

    tuned = charloom.train(texts=VERSES[:8], base_model=folder / "verses", out=folder / "tuned", steps=5)
    print("fine-tuned from", Path(tuned.metadata["base_model"]).name)
    return resumed


async def first_chunk(model: charloom.Model) -> str:
    """Leaves an endless text after its first chunk; the work ends there."""
    async for chunk in model.astream("Roses", length=10**9, seed=1):
        return chunk
    return ""


def generate(model: charloom.Model, folder: Path) -> None:
    """Text, probabilities and copies of a model."""
    print("prompts:", model.generate(["Roses", "violets"], records=1, seed=1, temperature=0.2))
    print("next token:", [(token, f"{share:.2f}") for token, share in model.next_token("violets are ").items()][:3])
    print("end of a record:", f"{model.next_token(VERSES[0])[charloom.RECORD_SEPARATOR]:.2f}")
    print("astream:", asyncio.run(first_chunk(model))[:20])
    print("evaluate:", f"{model.evaluate(VERSES[0], baselines=False).bits_per_char:.2f} bits per character")
    print("trace:", sorted(model.trace("Roses").arrays)[:3])

    model.save(folder / "saved")
    copies = [charloom.load(folder / "saved"), copy.deepcopy(model)]
    with get_context("spawn").Pool(1) as pool:  # a model is pickled for each worker
        texts = [pool.apply(model.generate, ("Roses",), {"length": 30, "seed": 1})]
    texts += [each.generate("Roses", length=30, seed=1) for each in copies]
    print("saved, copied and pickled:", {*texts} == {model.generate("Roses", length=30, seed=1)})


def main(folder: Path, *checkpoints: str) -> None:
    """Each part in turn."""
    print("charloom", charloom.__version__)
    generate(train(folder), folder)
    for checkpoint in checkpoints:
        print("imported:", charloom.import_model(checkpoint))
    try:
        charloom.load(folder / "nothing")
    except charloom.ModelError as error:
        print("ModelError:", error)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
