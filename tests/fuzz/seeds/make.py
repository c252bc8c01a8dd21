"""Writes the files of this folder again: `KERAS_BACKEND=torch .venv/bin/python tests/fuzz/seeds/make.py`.

They are kept because Keras and PyTorch take longer to load than a short fuzz run lasts, and because PyTorch's older
format holds addresses of memory, so that each run would begin with other bytes.
"""

from __future__ import annotations

from pathlib import Path

import keras
import torch
from keras import layers as L
from torch import nn

FOLDER = Path(__file__).parent
VOCABULARY = "dZ b\naé→c?"
V = len(VOCABULARY)

keras.utils.set_random_seed(0)
for name, network in {
    "lstm.keras": [L.Input((None, V)), L.LSTM(3, return_sequences=True), L.Dense(V)],
    "gru.weights.h5": [L.Input((None,)), L.Embedding(V, 2), L.GRU(3, return_sequences=True), L.Dense(V)],
    "rnn.h5": [L.Input((None, V)), L.SimpleRNN(3, return_sequences=True), L.Dense(V)],
}.items():
    model = keras.Sequential(network)
    (model.save_weights if name.endswith(".weights.h5") else model.save)(FOLDER / name)

for name, cell, tokens in (
    ("lstm.net", nn.LSTM(V, 4), tuple(VOCABULARY)),
    ("gru-legacy.net", nn.GRU(V, 4, 2), {token: index for index, token in enumerate(VOCABULARY)}),
    ("rnn.net", nn.RNN(V, 4), list(VOCABULARY)),
):
    net = nn.ModuleDict({"cell": cell, "fc": nn.Linear(4, V)})
    checkpoint = {"n_hidden": 4, "state_dict": net.state_dict(), "tokens": tokens}
    zipped = "legacy" not in name
    torch.save(checkpoint, FOLDER / name, _use_new_zipfile_serialization=zipped)  # noqa: TID251 - what users bring

(FOLDER / "characters.txt").write_text(VOCABULARY, encoding="utf-8")
