"""The low-level module: names only. What they do is in `ais_bench.one_device`."""

from ais_bench.one_device.descriptors import dtype, format, tensor_desc
from ais_bench.one_device.file_pipeline import infer_options
from ais_bench.one_device.inference_session import InferenceSession, model, session_options
from ais_bench.one_device.tensor import BaseTensor, Tensor, batch, type
from ais_bench.one_device.times import MemorySummary, sumary

int8, uint8, int16, uint16 = dtype.int8, dtype.uint8, dtype.int16, dtype.uint16
int32, uint32, int64, uint64 = dtype.int32, dtype.uint32, dtype.int64, dtype.uint64
float16, float32, double, float64, bool = dtype.float16, dtype.float32, dtype.float64, dtype.float64, dtype.bool
Summary = sumary
memory_host, memory_device, memory_dvpp = type.memory_host, type.memory_device, type.memory_dvpp

__all__ = [
    "BaseTensor",
    "InferenceSession",
    "MemorySummary",
    "Summary",
    "Tensor",
    "batch",
    "dtype",
    "format",
    "infer_options",
    "model",
    "session_options",
    "sumary",
    "tensor_desc",
    "type",
]
