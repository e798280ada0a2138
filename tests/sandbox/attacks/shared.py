"""What hostile code tries on its own keepers, and on what the whole machine has only one of."""

# ruff: noqa: E501 - each payload is a program, kept in one place

from __future__ import annotations

from sandbox.attacks.payloads import Attack

SHARED = [
    # -- the first process and the guard, which have the same uid
    Attack(
        "memory_of_its_keepers",
        "closed to /proc",
        "print([attempt(lambda p=p: os.open('/proc/%d/mem' % p, os.O_RDWR)) for p in (1, os.getppid())])",
        r"^\['EACCES', 'EACCES'\]",
        "root",
    ),
    Attack(
        "forge_its_own_end",
        "closed to /proc",
        "guard = os.getppid()\n"
        "print(attempt(lambda: os.write(os.open('/proc/%d/fd/3' % guard, os.O_WRONLY), b'0 0 0')), attempt(lambda: os.listdir('/proc/1/fd')))",
        "^EACCES EACCES",
    ),
    Attack(
        "wake_pipes_and_maps_of_the_first_process",
        "closed to /proc",
        "print({attempt(lambda p=p: open('/proc/1/' + p, 'rb').read(1)) for p in ('fd/4', 'fd/5', 'maps', 'auxv', 'environ', 'io', 'fdinfo/3', 'task/1/mem', 'task/1/fd/3')})",
        r"^\{'EACCES'\}$",
    ),
    Attack(
        "settings_of_the_first_process",
        "closed to /proc",
        "def put(p):\n  fd = os.open('/proc/1/' + p, os.O_WRONLY)\n  return os.write(fd, b'0')\n"
        "print({attempt(lambda p=p: put(p)) for p in ('oom_score_adj', 'coredump_filter', 'clear_refs', 'timerslack_ns', 'comm', 'sched', 'autogroup', 'loginuid')})",
        r"^\{('(EACCES|EPERM|ENOENT|EINVAL|EROFS)'(, )?)+\}$",
    ),
    Attack(
        "limits_of_its_keepers",
        "filter",
        "print([attempt(lambda p=p: resource.prlimit(p, resource.RLIMIT_NOFILE, (3, 3))) for p in (1, os.getppid())], resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 3)",
        r"^\['(EPERM|EACCES)', '(EPERM|EACCES)'\] True",
    ),
    Attack(
        "every_refused_call",
        "filter",
        "print(sorted({call(name, 0, 0, 0, 0, 0, 0) for name, numbers in NUMBERS.items() if numbers[COLUMN] is not None}))",
        r"^\['ENOSYS', 'EPERM'\]$",
    ),
    # -- one for the whole machine
    Attack(
        "contexts_of_asynchronous_io",
        "filter",
        "place = ctypes.c_ulong(0)\nprint(call('io_setup', 500, ctypes.byref(place)))",
        "^ENOSYS",
        "any",
    ),
    Attack(
        "huge_pages",
        "filter",
        "number = {'x86_64': (9, 319, 29)}.get(platform.machine(), (222, 279, 194))\n"
        "print(call(number[0], 0, 2 << 20, 3, 0x40022, -1, 0), call(number[1], b'huge', 4), call(number[2], 0, 2 << 20, 0o5600))",
        "^EPERM EPERM EPERM",
    ),
    Attack(
        "protocols_that_load_modules",
        "filter",
        "tries = [(2, 1, 132), (2, 5, 132), (2, 6, 33), (2, 2, 136), (10, 2, 115), (16, 3, 6), (16, 3, 9), (16, 3, 11), (16, 3, 12), (16, 3, 16), (16, 3, 20), (16, 3, 21)]\n"
        "print({attempt(lambda t=t: socket.socket(*t)) for t in tries}, call(41 if COLUMN == 0 else 198, 2, 1, (1 << 32) | 132))",
        r"^\{'EPROTONOSUPPORT'\} EPROTONOSUPPORT",
    ),
    Attack(
        "lease_on_a_file_that_the_host_reads",
        "filter",
        "fd = os.open('leased', os.O_CREAT | os.O_RDWR)\nprint(attempt(lambda: fcntl.fcntl(fd, 1024, fcntl.F_WRLCK)))",
        "^EPERM",
        "any",
    ),
    Attack(
        "memory_that_nobody_may_look_at",
        "locked memory limit",
        "fd = libc.syscall(447, 0)\nif fd < 0: print('refused')\nelse:\n  os.ftruncate(fd, 64 << 20)\n  print(attempt(lambda: mmap.mmap(fd, 64 << 20)))",
        "^(refused|EAGAIN|EPERM|ENOMEM)",
    ),
    Attack(
        "timers",
        "signal queue limit",
        "spot, n = ctypes.c_void_p(), 0\nwhile n < 20000 and libc.timer_create(1, 0, ctypes.byref(spot)) == 0: n += 1\nprint('ESCAPED' if n >= 20000 else 'refused', n <= 4096)",
        "^refused True",
    ),
    # -- disk that a watch could miss
    Attack(
        "allocate_a_terabyte",
        "file size limit",
        "print(attempt(lambda: os.posix_fallocate(os.open('f', os.O_CREAT | os.O_RDWR), 0, 1 << 40)))",
        "^EFBIG",
    ),
    Attack(
        "disk_that_is_only_allocated",
        "disk watch",
        "for n in range(40):\n  os.posix_fallocate(os.open('f%d' % n, os.O_CREAT | os.O_RDWR), 0, 20 << 20)\n  time.sleep(0.1)\nprint('ESCAPED')",
        "^$",
        limits={"disk_mb": 100, "wall_s": 60},
        why="disk",
    ),
    Attack(
        "disk_in_a_closed_folder",
        "disk watch opens what is its own",
        "os.makedirs('closed/deeper', exist_ok=True)\nos.chmod('closed', 0o300)\nos.chdir('closed')\nfor n in range(40):\n"
        "  open('deeper/f%d' % n, 'wb').write(b'x' * (20 << 20))\n  os.chmod('.', 0o100)\n  time.sleep(0.1)\nprint('ESCAPED')",
        "^$",
        limits={"disk_mb": 100, "wall_s": 60},
        why="disk",
    ),
    Attack(
        "disk_deeper_than_anybody_looks",
        "what cannot be looked at is too much",
        "for n in range(1500):\n  os.makedirs('d' * 200, exist_ok=True)\n  os.chdir('d' * 200)\nfor n in range(40):\n  open('f%d' % n, 'wb').write(b'x' * (20 << 20))\n  time.sleep(0.1)\nprint('ESCAPED')",
        "^$",
        limits={"disk_mb": 100, "wall_s": 60},
        why="disk",
    ),
    Attack(
        "names_without_content",
        "disk watch counts files",
        "os.makedirs('names', exist_ok=True)\nfor n in range(80000): os.close(os.open('names/%d' % n, os.O_CREAT | os.O_WRONLY))\ntime.sleep(5)\nprint('ESCAPED')",
        "^$",
        limits={"disk_mb": 100, "wall_s": 60},
        why="disk",
    ),
]
