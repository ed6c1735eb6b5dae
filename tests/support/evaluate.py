"""Shared code of the tests of evaluations, which their processes can import."""

from __future__ import annotations

from typing import Any

import numpy as np


class Rows:
    """A data set of `count` samples of six numbers with true answers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return np.random.default_rng(index).normal(size=(1, 6)).astype(np.float32), index


class Order:
    """A metric of bits and order, which differs for any other sequence of outputs."""

    name = "order"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.value, self.seen = 0, []

    def update(self, outputs: Any, target: Any) -> None:
        self.seen.append(target)
        bits = outputs[0].tobytes() if isinstance(outputs, list) else repr(outputs).encode()
        self.value = hash_of(self.value.to_bytes(8, "little") + bits + str(target).encode())

    def compute(self) -> int:
        return self.value


def hash_of(data: bytes) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
