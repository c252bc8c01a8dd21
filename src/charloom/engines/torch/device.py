"""Which device, which precision."""

from __future__ import annotations

import torch

from charloom.errors import DeviceError


def choose_device(asked: str) -> torch.device:
    """The device asked for; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        DeviceError: if it is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(name for name, present in here.items() if present))
    if not here[asked]:
        present = ", ".join(name for name, is_here in here.items() if is_here)
        raise DeviceError(f"--device {asked} needs such a device and a PyTorch built for it; here there is: {present}")
    return torch.device(asked)


def choose_precision(asked: str, device: torch.device, cell: str) -> torch.dtype:
    """The precision asked for; `auto` takes bfloat16 products only where the hardware makes them faster.

    On a CPU that is an LSTM with bf16 matrix units (AMX): PyTorch has a fused kernel for the LSTM alone, and its GRU
    and RNN gained nothing from bf16 (LOG.md, "bf16 by cell").
    """
    if asked != "auto":
        return torch.bfloat16 if asked == "bf16" else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if device.type == "cpu" and cell == "lstm" and has_matrix_units():
        return torch.bfloat16
    return torch.float32


def has_matrix_units() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX), as PyTorch sees it."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # no public way to ask, up to PyTorch 2.13
    return bool(supported and supported())


def describe() -> str:
    """The devices here and what `auto` chooses, in one line."""
    device = choose_device("auto")
    precision = str(choose_precision("auto", device, "lstm")).removeprefix("torch.")
    return f"torch on {device.type}, {precision} for an lstm, {torch.get_num_threads()} threads"
