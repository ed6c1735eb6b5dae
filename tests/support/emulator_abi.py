"""AscendCL through ctypes: the functions of the emulator with their C types, for the emulator's own tests.

A letter for each parameter: p pointer, s text, z size_t, i int32, u uint32, q uint64, l int64, b int8, h int16, B uint8, H
uint16, f float. The result follows "->"; default: aclError (i); "-" is void.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ais_bench.emulator import library_path
from ais_bench.emulator.control import Emulator

_TYPES = {
    "p": ctypes.c_void_p, "s": ctypes.c_char_p, "z": ctypes.c_size_t, "i": ctypes.c_int32, "u": ctypes.c_uint32,
    "q": ctypes.c_uint64, "l": ctypes.c_int64, "b": ctypes.c_int8, "h": ctypes.c_int16, "B": ctypes.c_uint8,
    "f": ctypes.c_float, "H": ctypes.c_uint16, "-": None,
}  # fmt: skip

_DECLARATIONS = """
    aclInit(s) aclFinalize() aclFinalizeReference(p) aclrtGetVersion(ppp) aclGetRecentErrMsg()->s
    aclrtGetSocName()->s aclrtSetDevice(i) aclrtResetDevice(i) aclrtResetDeviceForce(i) aclrtGetDevice(p)
    aclrtGetDeviceCount(p) aclrtGetRunMode(p) aclrtSynchronizeDevice() aclrtSynchronizeDeviceWithTimeout(i)
    aclrtSetDeviceSatMode(i) aclrtGetDeviceSatMode(p) aclrtQueryDeviceStatus(ip) aclrtGetDeviceUtilizationRate(ip)
    aclrtCreateContext(pi) aclrtDestroyContext(p) aclrtSetCurrentContext(p) aclrtGetCurrentContext(p)
    aclrtCreateStream(p) aclrtCreateStreamWithConfig(puu) aclrtDestroyStream(p) aclrtDestroyStreamForce(p)
    aclrtSynchronizeStream(p) aclrtSynchronizeStreamWithTimeout(pi) aclrtStreamQuery(pp) aclrtStreamWaitEvent(pp)
    aclrtStreamWaitEventWithTimeout(ppi) aclrtStreamAbort(p) aclrtStreamGetId(pp) aclrtCreateEvent(p)
    aclrtCreateEventWithFlag(pu) aclrtDestroyEvent(p) aclrtRecordEvent(pp) aclrtResetEvent(pp) aclrtQueryEvent(pp)
    aclrtQueryEventStatus(pp) aclrtSynchronizeEvent(p) aclrtSynchronizeEventWithTimeout(pi)
    aclrtEventElapsedTime(ppp) aclrtSetExceptionInfoCallback(p) aclrtGetTaskIdFromExceptionInfo(p)->u
    aclrtGetStreamIdFromExceptionInfo(p)->u aclrtGetThreadIdFromExceptionInfo(p)->u
    aclrtGetDeviceIdFromExceptionInfo(p)->u aclrtGetErrorCodeFromExceptionInfo(p)->u aclrtGetMemInfo(ipp)
    aclrtMalloc(pzi) aclrtMallocAlign32(pzi) aclrtMallocCached(pzi) aclrtMallocWithCfg(pzip) aclrtMemFlush(pz)
    aclrtMemInvalidate(pz) aclrtFree(p) aclrtFreeWithDevSync(p) aclrtMallocHost(pz) aclrtMallocHostWithCfg(pqp)
    aclrtFreeHost(p) aclrtFreeHostWithDevSync(p) aclrtMemcpy(pzpzi) aclrtMemcpyAsync(pzpzip) aclrtMemcpy2d(pzpzzzi)
    aclrtMemcpy2dAsync(pzpzzzip) aclrtMemset(pziz) aclrtMemsetAsync(pzizp) aclrtDeviceCanAccessPeer(pii)
    aclrtDeviceEnablePeerAccess(iu) aclrtDeviceDisablePeerAccess(i) acldvppMalloc(pz) acldvppFree(p)
    aclrtHostRegister(pqip) aclrtHostRegisterV2(pqu) aclrtHostGetDevicePointer(ppu) aclrtHostUnregister(p)
    aclrtPointerGetAttributes(pp) aclmdlLoadFromFile(sp) aclmdlLoadFromMem(pzp) aclmdlLoadFromFileWithMem(sppzpz)
    aclmdlLoadFromMemWithMem(pzppzpz) aclmdlCreateConfigHandle()->p aclmdlDestroyConfigHandle(p)
    aclmdlSetConfigOpt(pipz) aclmdlLoadWithConfig(pp) aclmdlUnload(u) aclmdlQuerySize(spp)
    aclmdlQuerySizeFromMem(pzpp) aclmdlCreateDesc()->p aclmdlDestroyDesc(p) aclmdlGetDesc(pu)
    aclmdlGetDescFromFile(ps) aclmdlGetDescFromMem(ppz) aclmdlGetNumInputs(p)->z aclmdlGetNumOutputs(p)->z
    aclmdlGetInputSizeByIndex(pz)->z aclmdlGetOutputSizeByIndex(pz)->z aclmdlGetInputNameByIndex(pz)->s
    aclmdlGetOutputNameByIndex(pz)->s aclmdlGetInputIndexByName(psp) aclmdlGetOutputIndexByName(psp)
    aclmdlGetInputDataType(pz) aclmdlGetOutputDataType(pz) aclmdlGetInputFormat(pz) aclmdlGetOutputFormat(pz)
    aclmdlGetInputDims(pzp) aclmdlGetInputDimsV2(pzp) aclmdlGetInputDimsRange(pzp) aclmdlGetOutputDims(pzp)
    aclmdlGetCurOutputDims(pzp) aclmdlGetTensorRealName(ps)->s aclmdlGetOpAttr(pss)->s aclmdlGetDynamicBatch(pp)
    aclmdlGetDynamicHW(pzp) aclmdlGetInputDynamicGearCount(pzp) aclmdlGetInputDynamicDims(pzpz)
    aclmdlSetDynamicBatchSize(upzq) aclmdlSetDynamicHWSize(upzqq) aclmdlSetInputDynamicDims(upzp)
    aclCreateDataBuffer(pz)->p aclDestroyDataBuffer(p) aclUpdateDataBuffer(ppz) aclGetDataBufferAddr(p)->p
    aclGetDataBufferSizeV2(p)->z aclGetDataBufferSize(p)->u aclmdlCreateDataset()->p aclmdlDestroyDataset(p)
    aclmdlAddDatasetBuffer(pp) aclmdlGetDatasetNumBuffers(p)->z aclmdlGetDatasetBuffer(pz)->p
    aclmdlSetDatasetTensorDesc(ppz) aclmdlGetDatasetTensorDesc(pz)->p aclmdlExecute(upp) aclmdlExecuteAsync(uppp)
    aclmdlCreateExecConfigHandle()->p aclmdlDestroyExecConfigHandle(p) aclmdlSetExecConfigOpt(pipz)
    aclmdlExecuteV2(upppp) aclmdlExecuteAsyncV2(upppp) aclmdlCreateAndGetOpDesc(uuupzpppp)
    aclCreateTensorDesc(iipi)->p aclDestroyTensorDesc(p)->- aclGetTensorDescType(p) aclGetTensorDescFormat(p)
    aclGetTensorDescSize(p)->z aclGetTensorDescElementCount(p)->z aclGetTensorDescNumDims(p)->z
    aclGetTensorDescDim(pz)->l aclGetTensorDescDimV2(pzp) aclGetTensorDescDimRange(pzzp) aclSetTensorShapeRange(pzp)
    aclSetTensorDescName(ps)->- aclGetTensorDescName(p)->s aclGetTensorDescByIndex(pz)->p
    aclGetTensorDescAddress(p)->p aclmdlCreateAIPP(q)->p aclmdlDestroyAIPP(p) aclmdlGetAippDataSize(qp)
    aclmdlSetAIPPInputFormat(pi) aclmdlSetAIPPCscParams(pbhhhhhhhhhBBBBBB) aclmdlSetAIPPRbuvSwapSwitch(pb)
    aclmdlSetAIPPAxSwapSwitch(pb) aclmdlSetAIPPSrcImageSize(pii) aclmdlSetAIPPScfParams(pbiiiiq)
    aclmdlSetAIPPCropParams(pbiiiiq) aclmdlSetAIPPPaddingParams(pbiiiiq) aclmdlSetAIPPDtcPixelMean(phhhhq)
    aclmdlSetAIPPDtcPixelMin(pffffq) aclmdlSetAIPPPixelVarReci(pffffq) aclmdlSetInputAIPP(upzp)
    aclmdlSetAIPPByInputIndex(upzp) aclmdlGetAippType(uzpp) aclmdlGetFirstAippInfo(uzp) aclprofInit(sz)
    aclprofFinalize() aclprofCreateConfig(puipq)->p aclprofDestroyConfig(p) aclprofSetConfig(isz) aclprofStart(p)
    aclprofStop(p) aclprofCreateStamp()->p aclprofSetStampTraceMessage(psu) aclprofDestroyStamp(p)->- aclprofPush(p)
    aclprofPop() aclprofRangeStart(pp) aclprofRangeStop(u) aclmdlInitDump() aclmdlSetDump(s) aclmdlFinalizeDump()
    aclsysGetVersionStr(pp) aclsysGetCANNVersion(ip) aclmdlSetExternalWeightAddress(pspz)
    aclDataTypeSize(i)->z aclFloat16ToFloat(H)->f aclFloatToFloat16(f)->H
"""


def _signature(declaration: str) -> tuple[str, tuple[str, str]]:
    """ "aclInit(s)" to ("aclInit", ("s", "i"))."""
    head, _, result = declaration.partition("->")
    name, _, parameters = head.rstrip(")").partition("(")
    return name, (parameters, result or "i")


#: Parameters and result of every function.
SIGNATURES = dict(map(_signature, _DECLARATIONS.split()))

H2H, H2D, D2H, D2D, DEFAULT = range(5)
MBATCH = b"ascend_mbatch_shape_data"
AIPP = b"ascend_dynamic_aipp_data"


class IODims(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 128), ("dimCount", ctypes.c_size_t), ("dims", ctypes.c_int64 * 128))

    def shape(self) -> tuple[int, ...]:
        return tuple(self.dims[: self.dimCount])


class IODimsRange(ctypes.Structure):
    _fields_ = (("rangeCount", ctypes.c_size_t), ("range", ctypes.c_int64 * 2 * 128))


class Batch(ctypes.Structure):
    _fields_ = (("batchCount", ctypes.c_size_t), ("batch", ctypes.c_uint64 * 128))


class HW(ctypes.Structure):
    _fields_ = (("hwCount", ctypes.c_size_t), ("hw", ctypes.c_uint64 * 2 * 128))


class AclError(Exception):
    def __init__(self, function: str, code: int, text: str) -> None:
        super().__init__(f"{function}: {code}: {text}")
        self.code = code


class Acl:
    """A separate copy of the emulator's library. Each load starts a new machine with the environment's settings.

    `acl.aclrtFree(x)` returns the code; `acl.ok("aclrtFree", x)` raises AclError unless it is 0.
    """

    def __init__(self, path: Path | None = None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copy(path or library_path(), folder)
            self.cdll = ctypes.CDLL(os.fspath(copy))
            self.emulator = Emulator(copy)
        for name, (parameters, result) in SIGNATURES.items():
            function = getattr(self.cdll, name, None)
            if function is None:
                continue
            function.argtypes = [_TYPES[letter] for letter in parameters]
            function.restype = _TYPES[result]
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def text(self) -> str | None:
        found = self.aclGetRecentErrMsg()
        return None if found is None else found.decode()

    def ok(self, function: str, *arguments: Any) -> None:
        code = getattr(self, function)(*arguments)
        if code != 0:
            raise AclError(function, code, self.text() or "")

    def fill(self, kind: type, function: str, *arguments: Any) -> Any:
        """Call a function that writes to its first parameter, and return the value."""
        value = kind()
        self.ok(function, ctypes.byref(value), *arguments)
        return value.value

    # Calls that most tests need.

    def malloc(self, size: int) -> int:
        return self.fill(ctypes.c_void_p, "aclrtMalloc", size, 0)

    def malloc_host(self, size: int) -> int:
        return self.fill(ctypes.c_void_p, "aclrtMallocHost", size)

    def context(self, device: int) -> int:
        return self.fill(ctypes.c_void_p, "aclrtCreateContext", device)

    def stream(self) -> int:
        return self.fill(ctypes.c_void_p, "aclrtCreateStream")

    def event(self) -> int:
        return self.fill(ctypes.c_void_p, "aclrtCreateEvent")

    def to_device(self, array: np.ndarray) -> int:
        """Return new device memory with the array's bytes."""
        address = self.malloc(max(array.nbytes, 1))
        self.ok("aclrtMemcpy", address, array.nbytes, array.ctypes.data, array.nbytes, H2D)
        return address

    def to_host(self, address: int, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        out = np.empty(shape, dtype)
        self.ok("aclrtMemcpy", out.ctypes.data, out.nbytes, address, out.nbytes, D2H)
        return out

    def load(self, path: Path) -> Model:
        return Model(self, path)


class Model:
    """A loaded model with its description."""

    def __init__(self, acl: Acl, path: Path) -> None:
        self.acl = acl
        model_id = ctypes.c_uint32()
        acl.ok("aclmdlLoadFromFile", os.fspath(path).encode(), ctypes.byref(model_id))
        self.id = model_id.value
        self.desc = acl.aclmdlCreateDesc()
        acl.ok("aclmdlGetDesc", self.desc, self.id)
        self.inputs = acl.aclmdlGetNumInputs(self.desc)
        self.outputs = acl.aclmdlGetNumOutputs(self.desc)

    def input_size(self, index: int) -> int:
        return self.acl.aclmdlGetInputSizeByIndex(self.desc, index)

    def output_size(self, index: int) -> int:
        return self.acl.aclmdlGetOutputSizeByIndex(self.desc, index)

    def dims(self, function: str, index: int) -> tuple[int, ...]:
        dims = IODims()
        self.acl.ok(function, self.desc, index, ctypes.byref(dims))
        return dims.shape()

    def index(self, name: bytes) -> int:
        found = ctypes.c_size_t()
        self.acl.ok("aclmdlGetInputIndexByName", self.desc, name, ctypes.byref(found))
        return found.value

    def run(self, feeds: Dataset, results: Dataset) -> int:
        return self.acl.aclmdlExecute(self.id, feeds.handle, results.handle)

    def close(self) -> None:
        self.acl.ok("aclmdlDestroyDesc", self.desc)
        self.acl.ok("aclmdlUnload", self.id)


class Dataset:
    """A dataset with its own device memory: (address or None, size) pairs, or arrays to copy."""

    def __init__(self, acl: Acl, items: list[Any]) -> None:
        self.acl = acl
        self.handle = acl.aclmdlCreateDataset()
        self.addresses: list[int | None] = []
        self.buffers: list[int] = []
        self.owned: list[int] = []
        for item in items:
            if isinstance(item, np.ndarray):
                address, size = acl.to_device(item), item.nbytes
                self.owned.append(address)
            elif isinstance(item, int):
                address, size = acl.malloc(item), item
                self.owned.append(address)
            else:
                address, size = item
            buffer = acl.aclCreateDataBuffer(address, size)
            acl.ok("aclmdlAddDatasetBuffer", self.handle, buffer)
            self.addresses.append(address)
            self.buffers.append(buffer)

    def shape(self, index: int, dims: tuple[int, ...]) -> None:
        array = (ctypes.c_int64 * len(dims))(*dims)
        desc = self.acl.aclCreateTensorDesc(0, len(dims), array, 2)
        self.acl.ok("aclmdlSetDatasetTensorDesc", self.handle, desc, index)
        self.acl.aclDestroyTensorDesc(desc)

    def result_shape(self, index: int) -> tuple[int, ...] | None:
        desc = self.acl.aclmdlGetDatasetTensorDesc(self.handle, index)
        if desc is None:
            return None
        value = ctypes.c_int64()
        dims = []
        for axis in range(self.acl.aclGetTensorDescNumDims(desc)):
            self.acl.ok("aclGetTensorDescDimV2", desc, axis, ctypes.byref(value))
            dims.append(value.value)
        return tuple(dims)

    def close(self) -> None:
        self.acl.ok("aclmdlDestroyDataset", self.handle)
        for buffer in self.buffers:
            self.acl.ok("aclDestroyDataBuffer", buffer)
        for address in self.owned:
            self.acl.ok("aclrtFree", address)


def in_thread(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread without a context and return its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]
