"""The path of the emulator's library, and copies of it that lack some symbols.

A program that resolves AscendCL with dlsym must work without the functions that its CANN does not have. `library_without` makes
a library that lacks them: it copies the file and changes the first letter of each name in the table of dynamic symbols, so that
the loader does not find the function.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ais_bench.errors import ConfigError, FileDenied
from ais_bench.options import as_list, as_text

#: Functions that ACL 1.10 (CANN 8) does not have, and 1.17 does.
NEW_IN_1_17 = (
    "aclFinalizeReference",
    "aclmdlSetExternalWeightAddress",
    "aclrtFreeHostWithDevSync",
    "aclrtFreeWithDevSync",
    "aclrtHostGetDevicePointer",
    "aclrtHostRegister",
    "aclrtHostRegisterV2",
    "aclrtHostUnregister",
    "aclrtMallocHostWithCfg",
    "aclrtMallocWithCfg",
    "aclrtPointerGetAttributes",
    "aclrtStreamAbort",
    "aclrtStreamGetId",
    "aclrtStreamWaitEventWithTimeout",
    "aclrtSynchronizeDeviceWithTimeout",
    "aclsysGetCANNVersion",
    "aclsysGetVersionStr",
)
#: Functions in separate libraries, which not every product has.
MEDIA = ("acldvppFree", "acldvppMalloc")
PROFILING = (
    "aclprofCreateConfig",
    "aclprofCreateStamp",
    "aclprofDestroyConfig",
    "aclprofDestroyStamp",
    "aclprofFinalize",
    "aclprofInit",
    "aclprofPop",
    "aclprofPush",
    "aclprofRangeStart",
    "aclprofRangeStop",
    "aclprofSetConfig",
    "aclprofSetStampTraceMessage",
    "aclprofStart",
    "aclprofStop",
)
#: Functions of every CANN that only some programs need.
RARE = (
    "aclmdlCreateConfigHandle",
    "aclmdlDestroyConfigHandle",
    "aclmdlGetInputDimsRange",
    "aclmdlLoadFromFileWithMem",
    "aclmdlLoadFromMemWithMem",
    "aclmdlLoadWithConfig",
    "aclmdlQuerySize",
    "aclmdlQuerySizeFromMem",
    "aclmdlSetConfigOpt",
    "aclrtGetMemInfo",
)
#: Every function without which a program must work.
OPTIONAL = tuple(sorted(NEW_IN_1_17 + MEDIA + PROFILING + RARE))

_SHT_DYNSYM = 11
_HIDDEN_LETTER = b"~"


def library_path() -> Path:
    """Return the path of the emulator's installed library, with every symbol."""
    return Path(__file__).with_name("libascendcl_emulator.so")


def library_without(symbols: Iterable[str], folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a copy of the library that lacks `symbols`; without symbols, of the library itself.

    The copy is made once for each content and set of symbols, in `folder` or in the user's folder for temporary files.
    Processes may share it. Raises ConfigError for a symbol that the library does not have.
    """
    hidden = sorted({as_text("a symbol", symbol) for symbol in as_list("without", symbols, "symbols")})
    if not hidden:
        return library_path()
    image = library_path().read_bytes()
    digest = hashlib.sha256(image + "\0".join(hidden).encode()).hexdigest()[:16]
    target_folder = Path(folder) if folder is not None else Path(tempfile.gettempdir()) / f"ais_bench_emulator_{os.getuid()}"
    target_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target_folder.stat().st_uid != os.getuid():
        raise FileDenied(errno.EPERM, "the folder belongs to another user; no library is loaded from it", str(target_folder))
    target = target_folder / f"libascendcl_emulator_{digest}.so"
    if not target.exists():
        patched = _hide(image, hidden)
        with tempfile.NamedTemporaryFile(dir=target_folder, delete=False) as file:
            file.write(patched)
        os.replace(file.name, target)  # whole or not at all, for processes that do the same now
    return target


def _hide(image: bytes, hidden: list[str]) -> bytes:
    """Return `image` with the names of `hidden` changed in the string table of its dynamic symbols."""
    patched = bytearray(image)
    offset, size = _dynamic_strings(image)
    for name in hidden:
        at = image.find(b"\0" + name.encode() + b"\0", offset, offset + size)
        if at < 0:
            raise ConfigError(f"the emulator's library has no symbol {name!r}")
        patched[at + 1 : at + 2] = _HIDDEN_LETTER
    return bytes(patched)


def _dynamic_strings(image: bytes) -> tuple[int, int]:
    """Return offset and size of the string table of the dynamic symbols of an ELF64 little-endian file."""
    if image[:6] != b"\x7fELF\x02\x01":
        raise ConfigError("not a 64-bit little-endian ELF file")
    (section_headers,) = struct.unpack_from("<Q", image, 0x28)
    entry_size, count = struct.unpack_from("<HH", image, 0x3A)

    def section(index: int) -> tuple[int, int, int, int]:
        _, kind, _, _, offset, size, link = struct.unpack_from("<IIQQQQI", image, section_headers + index * entry_size)
        return kind, offset, size, link

    for index in range(count):
        kind, _, _, link = section(index)
        if kind == _SHT_DYNSYM:
            _, offset, size, _ = section(link)
            return offset, size
    raise ConfigError("the file has no dynamic symbols")
