from ais_bench.one_device.descriptors import dtype, format, tensor_desc
from ais_bench.one_device.file_pipeline import infer_options
from ais_bench.one_device.inference_session import InferenceSession, model, session_options
from ais_bench.one_device.tensor import BaseTensor, Tensor, batch, type
from ais_bench.one_device.times import MemorySummary, sumary

int8: dtype
uint8: dtype
int16: dtype
uint16: dtype
int32: dtype
uint32: dtype
int64: dtype
uint64: dtype
float16: dtype
float32: dtype
double: dtype
float64: dtype
bool: dtype
Summary = sumary
memory_host: type
memory_device: type
memory_dvpp: type

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
