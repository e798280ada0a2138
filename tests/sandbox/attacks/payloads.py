"""What hostile code tries. Each payload prints ESCAPED when it worked, and why not when it did not."""

# ruff: noqa: E501 - each payload is a program, kept in one place

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from interactd.sandbox.launchers.bubblewrap.seccomp import ABSENT, DENIED

NUMBERS = {name: numbers for table in (DENIED, ABSENT) for name, numbers in table.items()}

PRELUDE = """
import ctypes, errno, fcntl, glob, mmap, os, platform, resource, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
COLUMN = 0 if platform.machine() == "x86_64" else 1
NUMBERS = {numbers!r}
FACTS = {facts!r}
def call(name, *args):
    number = NUMBERS[name][COLUMN] if isinstance(name, str) else name
    ctypes.set_errno(0)
    got = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "ESCAPED %d" % got if got >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(work):
    try:
        return "ESCAPED %r" % (work(),)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
"""


@dataclass(frozen=True, slots=True)
class Attack:
    """`expected`: what it must print, as a regular expression. `by`: what contains it. `control`: the same payload
    without a sandbox succeeds, and is safe to run (`root` where it takes that)."""

    name: str
    by: str
    code: str
    expected: str
    control: str | None = None
    limits: dict[str, Any] = field(default_factory=dict[str, Any])
    why: str | None = None
    machine: str | None = None


def source(attack: Attack, facts: dict[str, Any]) -> str:
    """Return the payload as a program."""
    return PRELUDE.format(numbers=NUMBERS, facts=facts) + attack.code


ATTACKS = [
    # -- files and secrets of the host
    Attack(
        "read_shadow", "root of allowed paths", "print(attempt(lambda: open('/etc/shadow').read(20)))", "ENOENT", "root"
    ),
    Attack(
        "read_a_key_file",
        "root of allowed paths",
        "print(attempt(lambda: open(FACTS['secret']).read()))",
        "ENOENT",
        "any",
    ),
    Attack(
        "list_the_homes",
        "root of allowed paths",
        "print(attempt(lambda: os.listdir('/root')), os.listdir('/home'))",
        r"^ENOENT \['agent'\]",
    ),
    Attack(
        "read_another_workspace",
        "root of allowed paths",
        "print(attempt(lambda: os.listdir(FACTS['home'])))",
        "ENOENT",
        "any",
    ),
    Attack(
        "environment_of_everything",
        "an empty environment for bwrap",
        "def read(p):\n  try: return open(p, 'rb').read()\n  except OSError: return b''\n"
        "found = [p for p in glob.glob('/proc/*/environ') if b'sk-decoy' in read(p)]\n"
        "print('ESCAPED' if found or 'OPENAI_API_KEY' in os.environ else 'nothing')",
        "nothing",
        "any",
    ),
    Attack(
        "root_of_pid_1",
        "pid namespace, closed to /proc",
        "print(attempt(lambda: open('/proc/1/root/etc/shadow').read()), attempt(lambda: open('/proc/self/root/etc/shadow').read()))",
        "EACCES ENOENT",
    ),
    Attack(
        "leaked_descriptors",
        "descriptors closed",
        "links = [os.readlink('/proc/self/fd/%s' % n) for n in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/%s' % n)]\n"
        "print('ESCAPED' if [l for l in links if not l.startswith(('pipe:', '/proc/', '/dev/null'))] else 'only pipes')",
        "only pipes",
    ),
    Attack(
        "file_handles",
        "filter",
        "buffer = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + b'\\0' * 128)\nm = ctypes.c_int()\n"
        "print(call('name_to_handle_at', -100, b'/', buffer, ctypes.byref(m), 0), call('open_by_handle_at', 0, buffer, 0))",
        "EPERM EPERM",
    ),
    Attack(
        "write_the_system",
        "read-only binds",
        "print(attempt(lambda: open('/usr/bin/x','w')), attempt(lambda: open('/etc/passwd','a')), attempt(lambda: open('/x','w')))",
        "EROFS (EROFS|EACCES) EROFS",
    ),
    # -- other processes
    Attack("ptrace_pid_1", "filter", "print(call('ptrace', 16, 1, 0, 0), call('ptrace', 0, 0, 0, 0))", "EPERM EPERM"),
    Attack("read_memory_of_pid_1", "filter", "print(call('process_vm_readv', 1, 0, 0, 0, 0, 0))", "EPERM", None),
    Attack(
        "what_pid_1_has",
        "nothing in it",
        "status = open('/proc/1/status').read()\n"
        "caps = [l for l in status.splitlines() if l.startswith(('CapEff', 'CapPrm', 'CapBnd'))]\n"
        "print('powerless' if all(l.endswith('0' * 16) for l in caps) and 'Seccomp:\\t2' in status else 'ESCAPED', attempt(lambda: open('/proc/1/environ').read()))",
        "powerless EACCES",
    ),
    Attack("steal_a_descriptor", "filter", "fd = os.pidfd_open(1)\nprint(call('pidfd_getfd', fd, 3, 0))", "EPERM"),
    Attack(
        "kill_a_host_process",
        "pid namespace",
        "print(attempt(lambda: os.kill(FACTS['pid'], 0)), len([n for n in os.listdir('/proc') if n.isdigit()]) < 8)",
        "ESRCH True",
        "any",
    ),
    Attack(
        "kill_the_supervisor",
        "pid 1 takes no signal from inside",
        "os.kill(1, 9); os.kill(1, 15); os.kill(1, 19); time.sleep(0.1); print('it lives')",
        "it lives",
    ),
    # -- kernel interfaces
    Attack(
        "mount",
        "no capabilities, filter",
        "print(call('mount', b'none', b'/tmp', b'tmpfs', 0, 0), call('mount', b'none', b'/', 0, 0x20, 0))",
        "EPERM EPERM",
    ),
    Attack(
        "new_mount_calls",
        "filter",
        "print(call('fsopen', b'tmpfs', 0), call('open_tree', -100, b'/', 1), call('move_mount', 0, b'', 0, b'', 0), call('mount_setattr', 0, b'', 0, 0, 0))",
        "EPERM EPERM EPERM EPERM",
    ),
    Attack(
        "chroot_and_pivot",
        "filter",
        "print(call('chroot', b'/tmp'), call('pivot_root', b'/tmp', b'/tmp'))",
        "EPERM EPERM",
    ),
    Attack(
        "user_namespace",
        "filter, --disable-userns",
        "print(call('unshare', 0x10000000), call('unshare', 0x20000))",
        "EPERM EPERM",
        "any",
    ),
    Attack(
        "clone_into_namespaces",
        "filter",
        "number = 56 if COLUMN == 0 else 220\nprint(call(number, 0x10000000 | 17, 0, 0, 0, 0), call('clone3', 0, 0))",
        "EPERM ENOSYS",
    ),
    Attack(
        "join_namespaces",
        "filter",
        "print(call('setns', os.open('/proc/self/ns/mnt', 0), 0), call('setns', os.pidfd_open(1), 0x20000), attempt(lambda: os.open('/proc/1/ns/mnt', 0)))",
        "EPERM EPERM EACCES",
    ),
    Attack("io_uring", "filter", "print(call('io_uring_setup', 4, ctypes.create_string_buffer(200)))", "ENOSYS"),
    Attack("bpf", "filter", "print(call('bpf', 0, ctypes.create_string_buffer(72), 72))", "EPERM"),
    Attack("perf", "filter", "print(call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1, 0))", "EPERM"),
    Attack("userfaultfd", "filter", "print(call('userfaultfd', 1))", "EPERM", "any"),
    Attack(
        "keyrings",
        "filter",
        "print(call('keyctl', 0, -3, 0), call('add_key', b'user', b'x', b'y', 1, -3), call('request_key', b'user', b'x', 0, 0))",
        "EPERM EPERM EPERM",
        "any",
    ),
    Attack(
        "fanotify_and_quota",
        "filter",
        "print(call('fanotify_init', 0, 0), call('quotactl', 0, 0, 0, 0))",
        "EPERM EPERM",
    ),
    Attack(
        "modules_and_kexec",
        "filter",
        "print(call('finit_module', 0, b'', 0), call('kexec_load', 0, 0, 0, 0), call('reboot', 0, 0, 0, 0))",
        "EPERM EPERM EPERM",
    ),
    Attack(
        "set_the_clock",
        "filter",
        "print(call('settimeofday', ctypes.create_string_buffer(16), 0), call('clock_settime', 0, ctypes.create_string_buffer(16)))",
        "EPERM EPERM",
    ),
    Attack(
        "odd_socket_families",
        "filter on families",
        "print([attempt(lambda f=f: socket.socket(f, t)) for f, t in ((40, 1), (38, 5), (17, 3), (29, 3), (44, 3))])",
        r"\['EAFNOSUPPORT', 'EAFNOSUPPORT', 'EAFNOSUPPORT', 'EAFNOSUPPORT', 'EAFNOSUPPORT'\]",
    ),
    Attack(
        "odd_families_with_high_bits",
        "32-bit compare",
        "print(call(41 if COLUMN == 0 else 198, (1 << 32) | 40, 1, 0))",
        "EAFNOSUPPORT",
    ),
    Attack("x32_calls", "filter", "print(call(0x40000000 | 39))", "ENOSYS", machine="x86_64"),
    Attack(
        "int_0x80",
        "architecture check",
        "code = mmap.mmap(-1, 4096, prot=7)\ncode.write(bytes.fromhex('b814000000cd80c3'))\n"
        "print('ESCAPED', ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())",
        "^$",
        "any",
        machine="x86_64",
    ),
    Attack(
        "kernel_settings",
        "uid, /proc/sys read-only",
        "print(attempt(lambda: open('/proc/sys/kernel/core_pattern','w')), attempt(lambda: open('/proc/sysrq-trigger','w')))",
        "(EROFS|EACCES) (EROFS|EACCES|ENOENT)",
        "root",
    ),
    Attack("release_agent", "no /sys", "print(attempt(lambda: os.listdir('/sys')))", "ENOENT", "any"),
    Attack(
        "devices",
        "a /dev of its own",
        "print([attempt(lambda d=d: open('/dev/' + d)) for d in ('vda', 'sda', 'kvm', 'mem', 'loop0', 'fuse', 'net/tun')], attempt(lambda: os.mknod('/tmp/n', 0o060600, os.makedev(254, 0))))",
        r"\[('ENOENT'(, )?){7}\] EPERM",
    ),
    Attack(
        "push_into_the_terminal",
        "filter, new session",
        "m, s = os.openpty()\nprint(attempt(lambda: fcntl.ioctl(s, 0x5412, b'x')), call(16 if COLUMN == 0 else 29, s, (1 << 32) | 0x5412, b'x'))",
        "EPERM EPERM",
    ),
    Attack(
        "gain_privileges",
        "no-new-privs, nosuid",
        "print([l for l in open('/proc/self/status').read().splitlines() if l.startswith('NoNewPrivs')][0][-1], all('nosuid' in l for l in open('/proc/self/mounts') if ' /workspace ' in l or ' /usr ' in l))",
        "^1 True",
    ),
    Attack(
        "leave_a_setuid_file",
        "filter on modes",
        "open('f','w').close()\nprint(attempt(lambda: os.chmod('f', 0o4755)), attempt(lambda: os.open('g', os.O_CREAT | os.O_WRONLY, 0o4755)), attempt(lambda: os.mknod('h', 0o102755)), "
        "call('openat2', -100, b'i', 0, 0), call('fchmodat2', -100, b'f', 0o4755, 0))",
        "EPERM EPERM EPERM ENOSYS ENOSYS",
        None,
    ),
    # -- the network
    Attack(
        "loopback_of_the_host",
        "net namespace",
        "print(attempt(lambda: socket.create_connection(('127.0.0.1', FACTS['port']), 2)))",
        "ECONNREFUSED",
        "any",
    ),
    Attack(
        "the_network",
        "net namespace",
        "s = socket.socket(2, 2)\nprint(attempt(lambda: socket.create_connection(('192.0.2.1', 80), 2)), attempt(lambda: s.sendto(b'x', ('192.0.2.1', 53))))",
        "ENETUNREACH ENETUNREACH",
    ),
    Attack(
        "dns",
        "net namespace, no resolver",
        "try: print('ESCAPED', socket.getaddrinfo('example.org', 80))\nexcept socket.gaierror: print('no answer')",
        "no answer",
    ),
    Attack(
        "metadata_address",
        "net namespace",
        "print(attempt(lambda: socket.create_connection(('169.254.169.254', 80), 2)))",
        "ENETUNREACH",
    ),
    Attack(
        "abstract_socket_of_the_host",
        "net namespace",
        "s = socket.socket(1)\nprint(attempt(lambda: s.connect('\\0' + FACTS['abstract'])))",
        "ECONNREFUSED",
        "any",
    ),
    Attack(
        "path_socket_of_the_host",
        "root of allowed paths",
        "s = socket.socket(1)\nprint(attempt(lambda: s.connect(FACTS['path_socket'])))",
        "ENOENT",
        "any",
    ),
    Attack("interfaces", "net namespace", "print(sorted(name for _n, name in socket.if_nameindex()))", r"^\['lo'\]"),
    # -- using things up
    Attack(
        "fork_bomb",
        "pids limit",
        "n = 0\ntry:\n  while n < 400:\n    if os.fork() == 0: time.sleep(30); os._exit(0)\n    n += 1\nexcept OSError as e: print(errno.errorcode[e.errno], n < 70)",
        "EAGAIN True",
        limits={"pids": 64},
    ),
    Attack(
        "threads",
        "pids limit",
        "import threading\nn = 0\ntry:\n  while n < 400: threading.Thread(target=time.sleep, args=(5,), daemon=True).start(); n += 1\nexcept RuntimeError: print('refused', n < 70)\nsys.stdout.flush(); os._exit(0)",
        "refused True",
        limits={"pids": 64},
    ),
    Attack(
        "heap",
        "memory limit",
        "try:\n  x = bytearray(900 << 20)\n  print('ESCAPED', len(x))\nexcept MemoryError: print('refused')",
        "^(refused)?$",
        limits={"memory_mb": 200},
    ),
    Attack(
        "tmpfs_full",
        "sized tmpfs",
        "def fill(p):\n  with open(p, 'wb') as f:\n    for _ in range(600): f.write(b'x' * (1 << 20))\nprint(attempt(lambda: fill('/tmp/f')))",
        "ENOSPC|^$",
        limits={"memory_mb": 256},
    ),
    Attack(
        "tmpfs_elsewhere",
        "read-only remounts",
        "print(attempt(lambda: open('/dev/x','w')), attempt(lambda: open('/run/x','w')), attempt(lambda: open('/home/x','w')))",
        "EROFS EROFS EROFS",
    ),
    Attack(
        "large_file",
        "file size limit",
        "def fill():\n  with open('f', 'wb') as f:\n    for _ in range(60): f.write(b'x' * (1 << 20))\nprint(attempt(fill))",
        "EFBIG",
        limits={"file_mb": 20},
    ),
    Attack(
        "sparse_terabyte",
        "file size limit",
        "print(attempt(lambda: os.truncate(os.open('f', os.O_CREAT | os.O_RDWR), 1 << 40)))",
        "EFBIG",
        "any",
    ),
    Attack(
        "descriptors",
        "open files limit",
        "print(attempt(lambda: [os.dup(0) for _ in range(5000)]))",
        "EMFILE",
        limits={"open_files": 256},
    ),
    Attack(
        "priorities_and_locks",
        "rlimits, user namespace",
        "print(attempt(lambda: os.setpriority(0, 0, -5)), attempt(lambda: os.sched_setscheduler(0, 1, os.sched_param(1))), libc.mlockall(3) != 0 or resource.getrlimit(resource.RLIMIT_MEMLOCK))",
        "(EPERM|EACCES) EPERM True",
    ),
    Attack(
        "raise_the_limits",
        "hard limits",
        "def more(n):\n  resource.setrlimit(n, (resource.RLIM_INFINITY,) * 2)\nfor n in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):\n  try: more(n); print('ESCAPED')\n  except ValueError: print('refused')",
        r"^(refused\n){4}$",
        "root",
    ),
    Attack("processor_time", "cpu time limit", "while True: pass", "^$", limits={"cpu_s": 1}, why="cpu"),
    Attack(
        "output_flood",
        "output limit",
        "while True: print('x' * 65536)",
        "^x",
        limits={"output_bytes": 200_000},
        why="output",
    ),
    # -- surviving
    Attack(
        "ignores_every_signal",
        "SIGKILL of the tree",
        "os.setsid() if os.getpid() != os.getpgid(0) else None\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nprint('deaf', flush=True)\nwhile True: time.sleep(1)",
        "deaf",
        limits={"wall_s": 0.7},
        why="timeout",
    ),
    Attack(
        "what_it_learns",
        "made-up identity",
        "print(socket.gethostname(), repr(open('/proc/cmdline').read()), repr(open('/etc/machine-id').read()), os.getuid())",
        "^sandbox '' '' 1000",
    ),
]
