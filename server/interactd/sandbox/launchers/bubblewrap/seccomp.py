"""The system call filter, assembled here: no compiler, no libseccomp. For x86_64 and aarch64.

Order: a foreign architecture is killed (that stops `int 0x80`), x32 numbers do not exist, then what a sandbox must not
do is EPERM, and what cannot be looked into (structs behind pointers) does not exist, so that callers fall back.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable

_LD, _JEQ, _JSET, _JGE, _RET = 0x20, 0x15, 0x45, 0x35, 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name -> (x86_64, aarch64); None where the architecture has no such call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "setns": (308, 268),
    "unshare": (272, 97),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
}
ABSENT: dict[str, tuple[int | None, int | None]] = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "clone3": (435, 435),
    "openat2": (437, 437),
    "fchmodat2": (452, 452),
    "setxattrat": (463, 463),
    "file_setattr": (469, 469),
    # Its contexts are counted for the whole machine: a sandbox could leave none to the host's databases.
    "io_setup": (206, 0),
}
# Calls whose arguments are looked at: name -> numbers.
JUDGED: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "creat": (85, None),
    "open": (2, None),
    "openat": (257, 56),
    "mmap": (9, 222),
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "prlimit64": (302, 261),
    "fcntl": (72, 25),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FAMILIES = (1, 2, 10, 16)  # UNIX, INET, INET6, NETLINK: AF_VSOCK belongs to no network namespace
_NETLINK = 16
# Whatever else is asked for (SCTP, DCCP, crypto, netfilter ...) can make the host's kernel load a module.
_INTERNET = (0, 1, 6, 17, 58, 262)  # the default, ICMP, TCP, UDP, ICMPv6, MPTCP
_NETLINKS = (0, 4, 15)  # routes, socket diagnosis, events of devices
# A lease makes whoever opens the file outside wait, or fail: it could be kept out of a copy or an archive.
_LEASES = (1024, 1040)
# Huge pages are one pool for the whole machine, and the memory group does not count them.
_HUGE = {"mmap": (3, 0x40000), "memfd_create": (1, 4), "shmget": (2, 0o4000)}
_SET_ID = 0o6000
_CREATES = 0o100 | 0o20000000  # O_CREAT, O_TMPFILE
_MODE_AT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "mknod": 1, "mknodat": 2, "creat": 1}
_OPEN_AT = {"open": (1, 2), "openat": (2, 3)}


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value & 0xFFFFFFFF)


def _fail(number: int) -> bytes:
    return _op(_RET, _ERRNO | number)


def _load(argument: int) -> bytes:
    # The low half: the kernel reads these arguments as 32 bits, and a compare of 64 can be stepped around.
    return _op(_LD, _ARG0 + 8 * argument)


def _judge(name: str) -> list[bytes]:
    """Return the block for one call; it ends in a return on every path."""
    allow, refuse = _op(_RET, _ALLOW), _fail(errno.EPERM)
    if name == "clone":
        return [_load(0), _op(_JSET, _NEW_NAMESPACES, 0, 1), refuse, allow]
    if name == "ioctl":
        return [_load(1), _op(_JEQ, _TIOCSTI, 1, 0), _op(_JEQ, _TIOCLINUX, 0, 1), refuse, allow]
    if name == "socket":
        netlink, internet = _one_of(2, _NETLINKS), _one_of(2, _INTERNET)
        tests = [_op(_JEQ, family, len(_FAMILIES) - at, 0) for at, family in enumerate(_FAMILIES)]
        unix = [_op(_JEQ, 1, 0, 1), allow]
        which = [_op(_JEQ, _NETLINK, 0, len(netlink)), *netlink, *internet]
        return [_load(0), *tests, _fail(errno.EAFNOSUPPORT), *unix, *which]
    if name == "socketpair":
        tests = [_op(_JEQ, family, len(_FAMILIES) - at, 0) for at, family in enumerate(_FAMILIES)]
        return [_load(0), *tests, _fail(errno.EAFNOSUPPORT), allow]
    if name == "prlimit64":
        # Of others only to look: the first process must not be left without the means to start anything.
        asks = [_load(2), _op(_JEQ, 0, 0, 3), _op(_LD, _ARG0 + 20), _op(_JEQ, 0, 0, 1)]
        return [_load(0), _op(_JEQ, 0, len(asks), 0), *asks, allow, refuse]
    if name == "setpriority":
        # A first process that is never scheduled does not even die in time. 2: everything of this user.
        return [_load(0), _op(_JEQ, 2, 2, 0), _load(1), _op(_JEQ, 1, 0, 1), refuse, allow]
    if name.startswith("sched_"):
        return [_load(0), _op(_JEQ, 1, 0, 1), refuse, allow]
    if name == "fcntl":
        return [_load(1), _op(_JEQ, _LEASES[0], 1, 0), _op(_JEQ, _LEASES[1], 0, 1), refuse, allow]
    if name in _HUGE:
        argument, bits = _HUGE[name]
        return [_load(argument), _op(_JSET, bits, 0, 1), refuse, allow]
    if name in _OPEN_AT:
        flags, mode = _OPEN_AT[name]
        return [
            _load(flags),
            _op(_JSET, _CREATES, 0, 3),
            _load(mode),
            _op(_JSET, _SET_ID, 0, 1),
            refuse,
            allow,
        ]
    return [_load(_MODE_AT[name]), _op(_JSET, _SET_ID, 0, 1), refuse, allow]


def _one_of(argument: int, values: tuple[int, ...]) -> list[bytes]:
    """Return code that lets a call pass if that argument is one of these."""
    tests = [_op(_JEQ, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [_load(argument), *tests, _fail(errno.EPROTONOSUPPORT), _op(_RET, _ALLOW)]


def _column(table: dict[str, tuple[int | None, int | None]], column: int) -> Iterable[tuple[str, int]]:
    return ((name, number) for name, numbers in table.items() if (number := numbers[column]) is not None)


def program(machine: str | None = None) -> bytes | None:
    """Return the filter as an array of `struct sock_filter`, or None where this machine's numbers are not known."""
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        return None
    column = 0 if machine == "x86_64" else 1
    code = [_op(_LD, _ARCH), _op(_JEQ, ARCHITECTURES[machine], 1, 0), _op(_RET, _KILL), _op(_LD, _NR)]
    if machine == "x86_64":
        code += [_op(_JGE, _X32, 0, 1), _fail(errno.ENOSYS)]
    for name, number in _column(JUDGED, column):
        block = _judge(name)
        code += [_op(_JEQ, number, 0, len(block)), *block]
    for _name, number in _column(DENIED, column):
        code += [_op(_JEQ, number, 0, 1), _fail(errno.EPERM)]
    for _name, number in _column(ABSENT, column):
        code += [_op(_JEQ, number, 0, 1), _fail(errno.ENOSYS)]
    code.append(_op(_RET, _ALLOW))
    return b"".join(code)


def descriptor(filter_code: bytes) -> int:
    """Put the filter into a sealed memory file, at its start; the caller closes it."""
    fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    os.write(fd, filter_code)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
