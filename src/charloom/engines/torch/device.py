"""The choice of a device and a precision, and what a device needs: transfers, and fp32 that is fp32."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charloom.errors import DeviceError


def choose_device(asked: str) -> torch.device:
    """The device that is asked for. `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        DeviceError: if this machine does not have it.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(name for name, present in here.items() if present))
    if not here[asked]:
        present = ", ".join(name for name, is_here in here.items() if is_here)
        raise DeviceError(
            f"`device={asked!r}` needs such a device and a PyTorch that supports it; this machine has: {present}"
        )
    return torch.device(asked)


def choose_precision(asked: str, device: torch.device, cell: str) -> str:
    """The precision of the products, fp32 or bf16. `auto` takes bf16 only if the hardware makes it faster.

    On a CPU, bf16 is faster only for an LSTM with bf16 matrix units (AMX). PyTorch has a fused kernel for the LSTM
    alone; its GRU and RNN gained nothing from bf16 (LOG.md, "bf16 by cell").

    Raises:
        DeviceError: if bf16 is asked for, but PyTorch cannot train this cell with it on this device.
    """
    if asked == "bf16" and not trains_in_bf16(device.type, cell):
        raise DeviceError(
            f"`precision='bf16'` needs a {device.type.upper()} on which PyTorch trains the cell {cell!r} in bf16; "
            "this one cannot; use `precision='fp32'`"
        )
    if asked != "auto":
        return asked
    faster = bf16_is_faster(device, cell) and trains_in_bf16(device.type, cell)
    return "bf16" if faster else "fp32"


def bf16_is_faster(device: torch.device, cell: str) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32, for this cell."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cell == "lstm" and has_matrix_units()


@cache
def trains_in_bf16(device: str, cell: str) -> bool:
    """Whether PyTorch computes this cell in bfloat16 on this device, forward and backward.

    PyTorch has no function that answers this, so one tiny layer is tried. oneDNN has a bf16 LSTM only for AVX-512 and
    AMX. Elsewhere it raises a RuntimeError.
    """
    layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](1, 1, device=device)
    try:
        with torch.autocast(device, torch.bfloat16):
            out_TBH, _ = layer(torch.zeros(1, 1, 1, device=device))
        out_TBH.float().sum().backward()
    except RuntimeError:
        return False
    return True


def has_matrix_units() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX), as PyTorch sees it."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # PyTorch has no public function for it, up to 2.13
    return bool(supported and supported())


def use_plain_fp32() -> None:
    """Makes fp32 on CUDA what it is on a CPU. By default, cuDNN rounds factors to TF32, which has 10 bits of mantissa.

    It holds for the whole process. Who wants faster products than fp32 takes bf16.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def to_device(array: NDArray[np.int64], device: torch.device) -> Tensor:
    """The array on the device. A transfer to CUDA is from pinned memory, and nothing waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def describe_products(device: torch.device, products: torch.dtype) -> str:
    """Device and precision in a few words, with the name of the card or the number of threads."""
    name = str(products).removeprefix("torch.")
    if device.type == "cuda":
        plain = " without TF32" if products == torch.float32 else ""
        return f"cuda ({torch.cuda.get_device_name(device)}), {name}{plain}"
    count = torch.get_num_threads()
    return f"{device.type}, {name}" + (f", {count} thread{'s' * (count > 1)}" if device.type == "cpu" else "")


def describe() -> str:
    """The devices of this machine and the choice of `auto`, in one line."""
    device = choose_device("auto")
    precision = {"bf16": "bfloat16", "fp32": "float32"}[choose_precision("auto", device, "lstm")]
    return f"torch on {device.type}, {precision} for an lstm, {torch.get_num_threads()} threads"
