"""More of what hostile code tries: /proc, sockets, kernel objects, and what a watch from outside does not see at once."""

# ruff: noqa: E501 - each payload is a program, kept in one place

from __future__ import annotations

from sandbox.attacks.payloads import Attack

TRICKS = [
    Attack(
        "open_through_proc",
        "pid and mount namespaces, no capabilities",
        "print([attempt(lambda p=p: open(p, 'rb').read(64)) for p in ('/proc/kcore', '/proc/kmsg', '/proc/1/root/etc/shadow', '/proc/sched_debug', '/proc/sys/kernel/kexec_load_disabled/x')])",
        r"^\[('(ENOENT|EACCES|EPERM|ENOTDIR)'(, )?){5}\]$",
    ),
    Attack(
        "addresses_of_the_kernel",
        "kptr_restrict, no capabilities",
        "def read(p):\n  try: return open(p).read(100000)\n  except OSError: return ''\n"
        "print('ESCAPED' if any(int(line.split()[0], 16) for line in read('/proc/kallsyms').splitlines()[:500]) else 'zeros')",
        "zeros",
        "root",
    ),
    Attack(
        "write_through_proc",
        "no capabilities, read-only /proc/sys",
        "print([attempt(lambda p=p, t=t: os.write(os.open(p, os.O_WRONLY), t.encode())) for p, t in (('/proc/1/oom_score_adj', '-1000'), ('/proc/self/oom_score_adj', '-1000'), ('/proc/self/uid_map', '0 0 1'), ('/proc/self/setgroups', 'allow'), "
        "('/proc/sys/vm/drop_caches', '3'), ('/proc/irq/0/smp_affinity', '1'), ('/proc/1/comm', 'x'))])",
        r"^\[('(EACCES|EPERM|EROFS|ENOENT|EINVAL)'(, )?)+\]$",
    ),
    Attack(
        "change_its_own_program",
        "read-only binds",
        "print(attempt(lambda: open('/proc/self/exe', 'r+b')), attempt(lambda: open('/etc/interactd/supervisor.py', 'a')), attempt(lambda: open('/proc/1/exe', 'r+b')))",
        "^(EROFS|ETXTBSY|EACCES) (EROFS|EACCES) (EROFS|ETXTBSY|EACCES)",
    ),
    Attack(
        "control_group_paths",
        "cgroup namespace, no /sys",
        "text = open('/proc/self/cgroup').read()\nprint('ESCAPED' if 'interactd' in text else 'hidden', call('unshare', 0x02000000), call('mount', b'x', b'/tmp', b'cgroup', 0, b'memory'), call('mount', b'x', b'/tmp', b'cgroup2', 0, 0))",
        "hidden EPERM EPERM EPERM",
    ),
    Attack(
        "loopback_and_multicast_of_version_6",
        "net namespace",
        "def to(host, port, kind=socket.SOCK_STREAM):\n  s = socket.socket(socket.AF_INET6, kind)\n  s.settimeout(2)\n  return s.connect((host, port)) if kind == socket.SOCK_STREAM else s.sendto(b'x', (host, port))\n"
        "print(attempt(lambda: to('::1', FACTS['port'])), attempt(lambda: to('::ffff:127.0.0.1', FACTS['port'])), attempt(lambda: to('2001:db8::1', 80)), attempt(lambda: to('ff02::1', 5353, socket.SOCK_DGRAM)))",
        "^(ECONNREFUSED|EADDRNOTAVAIL|ENETUNREACH) (ECONNREFUSED|ENETUNREACH) (ENETUNREACH|EADDRNOTAVAIL) (ENETUNREACH|EADDRNOTAVAIL|EINVAL)",
    ),
    Attack(
        "raise_a_network",
        "no capabilities over the net namespace",
        "s = socket.socket(16, 3, 0)\n"
        "s.send(struct.pack('=LHHLL', 32, 16, 0x605, 1, 0) + struct.pack('=BxHiII', 0, 0, 0, 1, 1))\n"
        "print(errno.errorcode.get(-struct.unpack_from('=i', s.recv(4096), 16)[0], 'ESCAPED'))\n"
        "print([attempt(lambda p=p: socket.socket(16, 3, p).bind((0, -1))) for p in (9, 12)])",
        r"^EPERM\n\[",
    ),
    Attack(
        "raw_sockets",
        "no capabilities",
        "print(attempt(lambda: socket.socket(2, 3, 1)), attempt(lambda: socket.socket(2, 3, 255)), attempt(lambda: socket.socket(10, 3, 58)))",
        "^EPERM (EPERM|EPROTONOSUPPORT) EPERM",
        "root",
    ),
    Attack(
        "message_queues",
        "queue limit",
        "librt = ctypes.CDLL(None, use_errno=True)\nn = 0\nwhile n < 2000 and librt.mq_open(b'/q%d' % n, 0o102, 0o600, 0) >= 0: n += 1\nprint('ESCAPED' if n >= 2000 else 'refused', n < 50)",
        "refused True",
    ),
    Attack(
        "memory_in_files_without_names",
        "memory limit",
        "held = []\nfor n in range(12):\n  fd = os.memfd_create('m%d' % n)\n  held.append(fd)\n  for _ in range(80): os.write(fd, b'x' * (1 << 20))\n  time.sleep(0.15)\nprint('ESCAPED', len(held))",
        "^$",
        limits={"memory_mb": 200},
        why="memory",
    ),
    Attack(
        "memory_in_names_of_files",
        "memory limit",
        "n = 0\nwhile n < 600000:\n  os.mknod('/tmp/%064d' % n); n += 1\nprint('ESCAPED', n)",
        "^(Traceback.*)?$|ENOSPC|No space|Cannot allocate|MemoryError",
        limits={"memory_mb": 128, "wall_s": 60, "cpu_s": 60},
    ),
    Attack(
        "disk_in_files_without_names",
        "disk watch sees what is open",
        "held = []\nfor n in range(40):\n  f = open('gone', 'wb', buffering=0)\n  os.unlink('gone')\n  held.append(f)\n  for _ in range(20): f.write(b'x' * (1 << 20))\n  time.sleep(0.1)\nprint('ESCAPED', len(held))",
        "^$",
        limits={"disk_mb": 100, "wall_s": 60},
        why="disk",
    ),
    Attack(
        "stop_the_guard",
        "SIGCONT, SIGKILL of the tree",
        "os.kill(os.getppid(), signal.SIGSTOP)\nif os.fork() == 0:\n  os.setsid()\n  os.fork()\nprint('stopped', flush=True)\nwhile True: time.sleep(1)",
        "stopped",
        limits={"wall_s": 0.7},
        why="timeout",
    ),
    Attack(
        "kill_the_guard_and_go_on",
        "what has no guard is ended",
        "guard = os.getppid()\nif os.fork() == 0:\n  os.setsid()\n  os.kill(guard, signal.SIGKILL)\n  while True: time.sleep(1)\ntime.sleep(30)",
        "^$",
    ),
    Attack(
        "comet",
        "one kill of everything",
        "print('off', flush=True)\nwhile True:\n  if os.fork(): os._exit(0)\n  os.setsid()\n  if os.fork(): os._exit(0)",
        "off",
        limits={"wall_s": 1.0, "pids": 64},
    ),
    Attack(
        "sessions_and_forks_until_it_is_ended",
        "one kill of everything",
        "print('off', flush=True)\nwhile True:\n  try:\n    if os.fork() == 0: os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n  except OSError: pass",
        "off",
        limits={"wall_s": 1.0, "pids": 64},
        why="timeout",
    ),
    Attack(
        "adopt_the_orphans",
        "the guard adopts the adopter",
        "libc.prctl(36, 1, 0, 0, 0)\nfor _ in range(5):\n  if os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n    libc.prctl(1, 0, 0, 0, 0)\n    while True: time.sleep(1)\nprint('left behind')",
        "left behind",
    ),
    Attack(
        "every_signal_to_pid_1",
        "pid 1 takes no signal from inside",
        "for n in range(1, 65):\n  try: os.kill(1, n)\n  except OSError: pass\ntime.sleep(0.2)\nfd = os.pidfd_open(1)\nsignal.pidfd_send_signal(fd, signal.SIGKILL)\ntime.sleep(0.1)\nprint('it lives', os.path.exists('/proc/1'))",
        "it lives True",
    ),
    Attack(
        "flags_of_files",
        "no capabilities over the file system",
        "fd = os.open('f', os.O_CREAT | os.O_RDWR)\nd = os.open('.', os.O_RDONLY)\n"
        "def flag(bits): return attempt(lambda: fcntl.ioctl(fd, 0x40086602, struct.pack('=L', bits)))\n"
        "print(flag(0x10), flag(0x20), attempt(lambda: fcntl.ioctl(d, 0xC0045877, 0)), attempt(lambda: fcntl.ioctl(d, 0xC0045878, 0)), attempt(lambda: fcntl.ioctl(d, 0x8004587D, struct.pack('=I', 1))), "
        "attempt(lambda: fcntl.ioctl(d, 0x40086610, struct.pack('=Q', 1 << 20))), attempt(lambda: fcntl.ioctl(d, 0xC0185879, struct.pack('=QQQ', 0, 1 << 40, 0))))",
        r"^(EPERM|ENOTTY|EOPNOTSUPP|EACCES) (EPERM|ENOTTY|EOPNOTSUPP|EACCES) (EPERM|ENOTTY) (EPERM|ENOTTY) (EPERM|ENOTTY|EINVAL|EFAULT) (EPERM|ENOTTY) (EPERM|ENOTTY)",
    ),
    Attack(
        "links_to_what_is_not_its_own",
        "mounts, read-only binds",
        "print(attempt(lambda: os.link('/etc/passwd', 'p')), attempt(lambda: os.link('/usr/bin/env', 'e')), attempt(lambda: os.rename('/workspace', '/home/agent/w')), attempt(lambda: os.rmdir('/workspace')), call('umount2', b'/workspace', 2))",
        "^(EXDEV|EROFS|EPERM) (EXDEV|EROFS|EPERM) (EBUSY|EROFS|EXDEV) (EBUSY|EROFS) EPERM",
    ),
    Attack(
        "large_attributes",
        "file system",
        "open('f', 'w').close()\nn = 0\ntry:\n  while n < 3000: os.setxattr('f', 'user.%d' % n, b'x' * 60000); n += 1\nexcept OSError as e: print(errno.errorcode[e.errno], n < 100)\n"
        "print(attempt(lambda: os.setxattr('f', 'security.capability', b'x' * 20)), attempt(lambda: os.setxattr('f', 'trusted.x', b'x')), attempt(lambda: os.setxattr('f', 'system.posix_acl_access', b'x')))",
        "^(ENOSPC|E2BIG|ENOTSUP|EOPNOTSUPP|EDQUOT) True\n(EPERM|EINVAL|ENOTSUP) (EPERM|ENOTSUP|EOPNOTSUPP) (EINVAL|ENOTSUP|EOPNOTSUPP)",
    ),
    Attack(
        "another_terminal",
        "a devpts of its own",
        "print(sorted(os.listdir('/dev/pts')), attempt(lambda: open('/dev/tty', 'w')), attempt(lambda: open('/dev/console', 'w')))",
        r"^\['ptmx'\] ENXIO (ENOENT|EACCES|ENXIO|EIO|EROFS)",
    ),
]
