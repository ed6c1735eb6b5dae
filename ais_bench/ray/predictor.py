"""Predictor: a model for Ray Data's `map_batches`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ais_bench.errors import FeedError
from ais_bench.session import InferSession

__all__ = ["Predictor"]


class Predictor:
    """A callable class for `ray.data.Dataset.map_batches`: columns become inputs by name, outputs become columns.

        dataset.map_batches(
            Predictor,
            fn_constructor_kwargs={"model": "model.onnx"},
            batch_size=32,
            concurrency=4,
            num_gpus=1,  # or resources={"NPU": 1}; neither for CPU devices
        )

    Each actor of Ray Data holds one InferSession on the device that Ray assigned to it: device 0 of those that it sees.

    Args:
        model: a path that every node has, or the model's content as bytes.
        inputs: {input name: column}; an input that is not in it takes the column of its own name.
        outputs: {output name: column}; an output that is not in it gets a column of its own name.
        keep: columns that are passed on. None: all. Ray Data needs an id column to resume from a checkpoint.
        mode: as for `infer`.
        device_id: the device id, if it is not the first device.
        options: as for InferSession.

    Raises the errors of InferSession.
    """

    def __init__(
        self,
        model: Any,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        keep: Sequence[str] | None = None,
        mode: str = "static",
        device_id: int = 0,
        **options: Any,
    ) -> None:
        self._session = InferSession(device_id, model, **options)
        self._inputs = {desc.name: (inputs or {}).get(desc.name, desc.name) for desc in self._session.get_inputs()}
        self._outputs = [(outputs or {}).get(desc.name, desc.name) for desc in self._session.get_outputs()]
        self._dtypes = {desc.name: desc.dtype for desc in self._session.get_inputs()}
        self._keep = keep
        self._mode = mode

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Run one batch. Raises FeedError for a missing column, and the errors of `InferSession.infer`."""
        missing = [column for column in self._inputs.values() if column not in batch]
        if missing:
            raise FeedError(f"the batch must have columns {missing} for the model's inputs; it has {sorted(batch)}")
        feeds = {name: _as_array(batch[column], self._dtypes[name]) for name, column in self._inputs.items()}
        results = self._session.infer(feeds, self._mode)
        kept = batch if self._keep is None else {column: batch[column] for column in self._keep}
        return {**kept, **dict(zip(self._outputs, results, strict=True))}


def _as_array(column: Any, dtype: Any) -> Any:
    """Return a column as one array. Ray Data passes a column of arrays of one shape as an array of objects."""
    array = np.asarray(column)
    return np.stack([np.asarray(one, dtype) for one in array]) if array.dtype == object else array
