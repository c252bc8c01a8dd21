"""A limit on the unpacked size of an untrusted file: a small file must not fill the memory."""

from __future__ import annotations

from charloom.errors import ModelError

RATIO = 16  # float weights hardly compress; zlib's largest ratio is 1032
SPARE = 1 << 20  # bytes; zeros, such as initial biases, compress far more


def check_unpacked_size(unpacked: int, size: int) -> None:
    """Checks that a file of `size` bytes does not unpack to far more.

    Raises:
        ModelError: if `unpacked` bytes are more than weights in a file of that size.
    """
    if unpacked > RATIO * size + SPARE:
        raise ModelError(
            f"a file of {size:,} bytes must unpack to about as many; found {unpacked:,}: it is damaged or malicious"
        )
