"""Write records as Parquet, for pandas, polars, DuckDB or Arrow."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from ais_bench.errors import UnsupportedError
from ais_bench.evaluate.tally import STAGES
from ais_bench.tuning import ROWS

__all__ = ["write_parquet"]


def write_parquet(records: Iterable[dict[str, Any]], path: str) -> int:
    """Write records to a file, completely or not at all, and return their number.

    The columns are the fields of a record. `error` becomes three columns; `output` and `target` are JSON texts. Bytes of an id
    or a message that are not UTF-8 are escaped. Raises UnsupportedError if pyarrow is not installed, and OSError.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UnsupportedError("records as Parquet need pyarrow: pip install 'ais_bench[parquet]'") from None
    kinds = {
        "index": pyarrow.int64(),
        "id": pyarrow.string(),
        "device": pyarrow.int32(),
        "started_s": pyarrow.float64(),
        **dict.fromkeys((*STAGES, "worker_ms"), pyarrow.float64()),
        "attempts": pyarrow.int32(),
        "first": pyarrow.bool_(),
        "padded": pyarrow.int32(),
        **dict.fromkeys(("error_type", "error_message", "error_traceback", "target", "output"), pyarrow.string()),
    }
    schema = pyarrow.schema(list(kinds.items()))
    rows, temporary = iter(records), f"{path}.{os.getpid()}.tmp"
    count = 0
    try:
        with pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while some := [_row(record) for record in itertools.islice(rows, ROWS)]:
                writer.write_table(_table(pyarrow, some, schema))
                count += len(some)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    return count


def _table(pyarrow: Any, rows: Sequence[dict[str, Any]], schema: Any) -> Any:
    return pyarrow.Table.from_pydict({name: [row.get(name) for row in rows] for name in schema.names}, schema)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    row = {**record, "id": _utf8(record["id"]), "first": record.get("first", True), "padded": record.get("padded", 0)}
    for name in ("target", "output"):
        row[name] = json.dumps(record[name]) if name in record else None
    error = record["error"]
    if error is not None:
        row.update({f"error_{name}": _utf8(error[name]) for name in ("type", "message", "traceback")})
    return row


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
