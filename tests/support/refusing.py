"""Make the kernel refuse system calls to this process and its children, like an older kernel or a strict container."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterable

# By machine: seccomp's number of the architecture, and system call numbers. Newer calls have equal numbers everywhere.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS = {
    "x86_64": {"waitid": 247, "memfd_create": 319, "seccomp": 317, "fcntl": 72, "clone": 56},
    "aarch64": {"waitid": 95, "memfd_create": 279, "seccomp": 277, "fcntl": 25, "clone": 220},
}
NEWER = {"pidfd_send_signal": 424, "pidfd_open": 434, "clone3": 435, "close_range": 436}
P_PIDFD = 3
F_ADD_SEALS = 1033

_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_ARGUMENT_AT = {"waitid": (16, P_PIDFD), "fcntl": (24, F_ADD_SEALS)}  # only with this argument, at this place


def can_refuse() -> bool:
    """Return whether the numbers for this machine are known, and its kernel has seccomp."""
    libc = ctypes.CDLL(None, use_errno=True)
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    libc.syscall(ctypes.c_long(NUMBERS[machine]["seccomp"]), 1, 1, None)  # EFAULT: filters exist, and this is not a valid one
    return ctypes.get_errno() == errno.EFAULT


def refuse(names: Iterable[str], error: int = errno.ENOSYS) -> None:
    """Make these calls fail with `error` permanently, in every thread of this process and in its children."""
    machine = platform.machine()
    program = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]), (_RETURN, 0, 0, _ALLOW)]
    for name in names:
        number = NEWER.get(name) or NUMBERS[machine][name]
        program.append((_LOAD, 0, 0, _NUMBER_AT))
        if name in _ARGUMENT_AT:
            at, value = _ARGUMENT_AT[name]
            program += [(_JUMP_EQUAL, 0, 3, number), (_LOAD, 0, 0, at), (_JUMP_EQUAL, 0, 1, value)]
        else:
            program.append((_JUMP_EQUAL, 0, 1, number))
        program.append((_RETURN, 0, 0, _ERRNO | error))
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    given = Program(len(program), ctypes.cast(code, ctypes.c_void_p))
    tsync = 1
    if libc.syscall(ctypes.c_long(NUMBERS[machine]["seccomp"]), 1, tsync, ctypes.byref(given)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
