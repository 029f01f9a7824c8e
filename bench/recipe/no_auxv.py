"""no_auxv.py COMMAND...: runs a command to which the kernel refuses prctl(PR_GET_AUXV).

valgrind hides the vDSO, and corrects the auxiliary vector in memory and in /proc/self/auxv, but not in this call's answer
(3.19, Linux 6.4 and newer). rustix asks by this call, would read at the vDSO's address, and reads /proc/self/auxv if the
call fails.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

PRCTL = {"x86_64": 157, "aarch64": 167}
PR_GET_AUXV, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 0x41555856, 22, 38
FILTER, ALLOW, ERRNO = 2, 0x7FFF0000, 0x00050000
# Instructions of classic BPF, and where in `struct seccomp_data` the number and the first argument are.
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, ARGUMENT = 0, 16


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def main():
    if platform.machine() not in PRCTL:
        sys.exit(f"no_auxv.py does not know {platform.machine()}")
    instructions = [
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, PRCTL[platform.machine()]),
        (LOAD, 0, 0, ARGUMENT),
        (EQUAL, 0, 1, PR_GET_AUXV),
        (RETURN, 0, 0, ERRNO | errno.EINVAL),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(instructions), ctypes.addressof(code))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
