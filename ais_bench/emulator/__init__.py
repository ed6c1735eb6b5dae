"""Emulated NPUs: AscendCL on the CPU, for rehearsing a multi-NPU program on a laptop or in CI.

    from ais_bench.emulator import npus, pack

    pack("model.onnx", "model.om", dynamic_batch_size=[1, 2, 4, 8])
    with npus(8, exec_ms=5, faults="aclmdlExecute:3=507011@2"):
        ...                                # MultiDeviceSession("model.om", devices=range(8)) and its failure handling

What is emulated, every setting, and what cannot be learned from it: docs/emulator.md. The command line is
`python -m ais_bench.emulator`.
"""

from ais_bench.emulator.binary import library_path, library_without
from ais_bench.emulator.control import Emulator
from ais_bench.emulator.machine import npus
from ais_bench.emulator.pack import pack

__all__ = ["Emulator", "library_path", "library_without", "npus", "pack"]
