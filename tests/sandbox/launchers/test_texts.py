"""What is generated and can be read: the filter, command lines, the profile, instructions, groups' places."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from interactd.sandbox.launchers import install
from interactd.sandbox.launchers.bubblewrap import cgroups, owner, seccomp
from interactd.sandbox.launchers.container import exec_arguments, run_arguments
from interactd.sandbox.launchers.seatbelt import profile, quote
from interactd.sandbox.launchers.settings import Settings
from interactd.sandbox.port import Limits, Mount, Spec

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}
SPEC = Spec("env", Path("/data/ws"), Path("/data/home"), limits=Limits(memory_mb=300, pids=77, cpu=1.5, file_mb=9))


def run(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Interpret the filter for one call, as the kernel would; returns its verdict."""
    code = seccomp.program(machine)
    assert code is not None
    args = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, arch or seccomp.ARCHITECTURES[machine], 0, *args)
    value, at = 0, 0
    while True:
        op, yes, no, k = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if op == 0x20:
            value = struct.unpack_from("=I", data, k)[0]
        elif op == 0x06:
            return k
        else:
            holds = {0x15: value == k, 0x45: value & k != 0, 0x35: value >= k}[op]
            at += yes if holds else no


ALLOW, EPERM, ENOSYS, EAFNOSUPPORT, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x50061, 0x80000000
EPROTONOSUPPORT = 0x5005D


@pytest.mark.parametrize("machine", list(HEADERS))
def test_the_numbers_are_the_kernels(machine: str) -> None:
    header = next((Path(path) for path in HEADERS[machine] if Path(path).exists()), None)
    if header is None:
        pytest.skip("no kernel headers here")
    found = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", header.read_text())}
    column = list(HEADERS).index(machine)
    checked = 0
    for table in (seccomp.DENIED, seccomp.ABSENT, seccomp.JUDGED):
        for name, numbers in table.items():
            if name in found:
                assert numbers[column] == found[name], name
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("machine", list(HEADERS))
def test_each_call_gets_its_verdict(machine: str) -> None:
    column = list(HEADERS).index(machine)

    def verdict(name: str, *arguments: int) -> int:
        number = {**seccomp.DENIED, **seccomp.ABSENT, **seccomp.JUDGED}[name][column]
        assert number is not None
        return run(machine, number, *arguments)

    assert {verdict(name) for name, numbers in seccomp.DENIED.items() if numbers[column]} == {EPERM}
    assert {verdict(name) for name in seccomp.ABSENT} == {ENOSYS}
    assert [verdict("socket", family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert {verdict("socket", family) for family in (0, 3, 17, 38, 40, 1 << 32 | 40)} == {EAFNOSUPPORT}
    assert {verdict("socket", family, 1, protocol) for family in (2, 10) for protocol in (0, 6, 17, 262)} == {ALLOW}
    assert {verdict("socket", family, 1, protocol) for family in (2, 10) for protocol in (33, 132, 1 << 32 | 132)} == {
        EPROTONOSUPPORT
    }
    assert [verdict("socket", 16, 3, protocol) for protocol in (0, 4, 12, 16, 21)] == [ALLOW] * 2 + [
        EPROTONOSUPPORT
    ] * 3
    assert verdict("mmap", 0, 4096, 3, 0x22) == ALLOW
    huge = verdict("mmap", 0, 1 << 21, 3, 0x40022), verdict("memfd_create", 0, 5), verdict("shmget", 0, 1, 0o4600)
    assert set(huge) == {EPERM}
    assert [verdict("prlimit64", *given) for given in ((0, 7, 1 << 32), (0, 7, 5), (9, 7, 0))] == [ALLOW] * 3
    assert {verdict("prlimit64", pid, 7, new) for pid in (1, 9) for new in (5, 1 << 32)} == {EPERM}
    assert [verdict("fcntl", 3, command) for command in (1, 6, 1024, 1031, 1040)] == [ALLOW, ALLOW, EPERM, ALLOW, EPERM]
    assert [verdict("setpriority", *given) for given in ((0, 0), (0, 9), (1, 0))] == [ALLOW] * 3
    assert {verdict("setpriority", *given) for given in ((0, 1), (1, 1), (2, 0))} == {EPERM}
    assert [verdict("sched_setattr", pid) for pid in (0, 9, 1)] == [ALLOW, ALLOW, EPERM]
    assert verdict("clone", 17) == ALLOW
    assert {verdict("clone", 1 << bit) for bit in (17, 25, 26, 27, 28, 29, 30)} == {EPERM}
    assert verdict("ioctl", 0, 0x5401) == ALLOW
    assert {verdict("ioctl", 0, word) for word in (0x5412, 0x541C, 1 << 32 | 0x5412)} == {EPERM}
    assert (verdict("fchmod", 0, 0o755), verdict("fchmod", 0, 0o4755), verdict("fchmodat", 0, 0, 0o2755)) == (
        ALLOW,
        EPERM,
        EPERM,
    )
    assert verdict("openat", 0, 0, 0, 0o7777) == ALLOW
    assert (verdict("openat", 0, 0, 0o101, 0o644), verdict("openat", 0, 0, 0o101, 0o4755)) == (ALLOW, EPERM)
    assert verdict("openat", 0, 0, 0o20200001, 0o4755) == EPERM
    assert run(machine, 3) == ALLOW
    assert run(machine, 20, arch=0x40000003) == KILL


def test_x32_does_not_exist_and_an_unknown_machine_has_no_filter() -> None:
    assert run("x86_64", 0x40000000 | 39) == ENOSYS
    assert seccomp.program("riscv64") is None


def test_a_container_is_started_with_everything_off() -> None:
    argv = run_arguments("/usr/bin/podman", Settings(runtime="runsc"), SPEC, "n", uid=1000, gid=1000)
    line = " ".join(argv)
    for words in (
        "--network none", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--memory 300m",
        "--memory-swap 300m", "--pids-limit 77", "--cpus 1.5", "--user 1000:1000", "--runtime runsc", "--pull never",
        "--ulimit fsize=9437184", "type=bind,source=/data/ws,target=/workspace", "--rm -i --init",
    ):  # fmt: skip
        assert words in line
    assert "--privileged" not in line
    assert line.count(",readonly") == 2  # our two programs
    assert "/run/interactd/way" not in line
    assert argv[-2:] == ["-S", "/run/interactd/resident.py"]
    run_in = exec_arguments("docker", "n", "token", ["echo", "a b"], "/workspace", {"A": "1"})
    assert run_in[:6] == ["docker", "exec", "-i", "--workdir", "/workspace", "--env"]
    assert run_in[-4:] == ["--guard", "token", "echo", "a b"]


def test_a_container_with_a_network_still_has_none_but_the_proxys_socket() -> None:
    class Way:
        ca_file = Path("/data/ca.pem")

        async def serve(self, listener: object) -> None:
            del listener

    spec = replace(SPEC, egress=Way())
    argv = run_arguments("docker", Settings(), spec, "n", uid=1000, gid=1000, way=Path("/tmp/w/way"))
    line = " ".join(argv)
    assert "--network none" in line
    assert "type=bind,source=/tmp/w/way,target=/run/interactd/way,readonly" in line
    assert "type=bind,source=/data/ca.pem,target=/run/interactd/ca.pem,readonly" in line
    assert argv[-3:] == ["/run/interactd/resident.py", "3128", "/run/interactd/way/proxy"]
    assert not any(word in line for word in ("--privileged", "--publish", "-p ", "--add-host", "--device"))


def test_the_mac_profile_denies_by_default_and_names_only_what_is_needed(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("ws", "home", "lib")]
    for folder in folders:
        folder.mkdir()
    spec = Spec("e", folders[0], folders[1], mounts=(Mount(folders[2], "/workspace/lib"),))
    text = profile(spec, python=Path("/opt/python"), own=Path("/opt/interactd"))
    assert text.splitlines()[:2] == ["(version 1)", "(deny default)"]
    assert "network-outbound" not in text
    writes = next(line for line in text.splitlines() if line.startswith("(allow file-write* "))
    assert str(folders[0]) in writes
    assert str(folders[2]) not in writes
    assert text.count("(") == text.count(")")
    assert 'localhost:4567"' in profile(spec, python=Path("/p"), own=Path("/o"), proxy_port=4567)
    assert quote('a"b\\c') == '"a\\"b\\\\c"'


@pytest.mark.parametrize("manager", ["apt-get", "dnf", "pacman", "apk", "zypper"])
def test_the_command_for_this_distribution_is_named(tmp_path: Path, manager: str) -> None:
    (tmp_path / manager).write_text("#!/bin/sh\n")
    (tmp_path / manager).chmod(0o755)
    command = install.install_command(path=str(tmp_path))
    assert command is not None
    assert "bubblewrap" in command
    assert manager in command


def test_no_known_package_manager_is_no_command(tmp_path: Path) -> None:
    assert install.install_command(path=str(tmp_path)) is None


def test_what_bubblewrap_says_becomes_what_to_do() -> None:
    assert install.explain("bwrap: setting up uid map: Permission denied")
    assert install.explain("bwrap: No permissions to create new namespace")
    assert "systempaths" in str(install.explain("bwrap: Creating new namespace failed: Operation not permitted"))
    assert install.explain("bwrap: Can't find source path /x: No such file or directory") is None


def test_places_for_groups_are_found_in_both_versions(tmp_path: Path) -> None:
    for name in ("memory", "pids"):
        (tmp_path / name / "own").mkdir(parents=True)
        for place in (tmp_path / name, tmp_path / name / "own"):
            (place / "cgroup.procs").write_text("")
    mounts = "\n".join(f"cgroup {tmp_path / name} cgroup rw,{name} 0 0" for name in ("memory", "pids"))
    found = cgroups.find(mounts, "4:memory:/own\n8:pids:/\n")
    assert (found.version, found.folders["memory"], found.folders["pids"]) == (
        1,
        tmp_path / "memory/own",
        tmp_path / "pids",
    )

    base = tmp_path / "two" / "user.slice" / "app.slice"
    (base / "mine.scope").mkdir(parents=True)
    for name, text in {
        "cgroup.procs": "",
        "cgroup.controllers": "memory pids",
        "cgroup.subtree_control": "memory pids",
    }.items():
        (base / name).write_text(text)
    (base / "cgroup.subtree_control").chmod(0o444)
    found = cgroups.find(f"cgroup2 {tmp_path / 'two'} cgroup2 rw 0 0", "0::/user.slice/app.slice/mine.scope\n")
    assert found.version in (0, 2)
    assert cgroups.find("", "").notes


def test_every_environment_has_a_uid_of_its_own() -> None:
    uids = {owner.uid_for(f"env_{n}") for n in range(2000)}
    assert len(uids) >= 1999
    assert all(0x70000000 <= uid < 0x80000000 for uid in uids)
    assert owner.uid_for("env_1") == owner.uid_for("env_1")
