"""The image files: made sparse with exactly the room that was asked for, checked after a crash, grown, copied.

Blocking. The programs are those of e2fsprogs, which every distribution has installed; they see only image files that
interactd made and the kernel wrote, never a file of an agent's.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

from interactd.sandbox.folder import trees

log = logging.getLogger(__name__)

BLOCK: Final = 4096
_MB: Final = 1 << 20
_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
_QUICK_S, _LONG_S = 60, 900
# Said in full, so that no mke2fs.conf has a part in it.
_FEATURES: Final = (
    "none,has_journal,ext_attr,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,dir_index,"
    "extra_isize,metadata_csum"
)
_ERRORS: Final = 2
_CORRECTED: Final = (0, 1, 2)


def tool(name: str) -> str | None:
    """Return the path of a program of e2fsprogs, which are not on every user's PATH."""
    return shutil.which(name, path=_PATH)


def inodes_for(disk_mb: int) -> int:
    """Return how many files and folders fit: one for each 16 KB, and 16,384 at least.

    Their tables also make the smallest image large enough for a journal, which takes 2,048 blocks in all.
    """
    return max(16_384, min(disk_mb * 64, 4_000_000))


def _journal_mb(disk_mb: int) -> int:
    return 4 if disk_mb < 256 else 16 if disk_mb < 8192 else 64


def bytes_for(disk_mb: int) -> int:
    """Return how large an image must be to have `disk_mb` free for files: with its journal, inodes and tables."""
    groups = disk_mb // 128 + 1
    tables = inodes_for(disk_mb) * 256 + groups * (3 * BLOCK + 64 * 2)
    # The kernel keeps 2 % or 16 MB back, for the metadata of what it has not written yet.
    kept_back = min(disk_mb * _MB // 50, 4096 * BLOCK)
    whole = disk_mb * _MB + _journal_mb(disk_mb) * _MB + tables + kept_back + 64 * BLOCK
    return -(-whole // (64 * BLOCK)) * 64 * BLOCK


def make(image: Path, disk_mb: int) -> None:
    """Make an image with an empty file system. About 10 ms, and 0.4 MB on the disk.

    Raises:
        OSError: it cannot be made; nothing of it is left.
    """
    fd = os.open(image, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(fd, bytes_for(disk_mb))
    finally:
        os.close(fd)
    options = ["-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", "256", "-m", "0", "-N", str(inodes_for(disk_mb))]
    options += ["-J", f"size={_journal_mb(disk_mb)}", "-O", _FEATURES, "-E"]
    options += ["lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"]
    try:
        _run("mke2fs", [*options, str(image)], _QUICK_S)
    except OSError:
        image.unlink(missing_ok=True)
        raise


def size_of(image: Path) -> int:
    return image.stat().st_size


def grow(image: Path, disk_mb: int) -> None:
    """Make an image that is not mounted as large as `disk_mb` needs.

    Raises:
        OSError: it cannot be; files in it are as they were.
    """
    check(image, force=True)
    before, wanted = size_of(image), bytes_for(disk_mb)
    # What an image has per part it has for every part added, so the sum may differ from one made anew.
    os.truncate(image, wanted + (wanted - before) // 64)
    _run("resize2fs", [str(image)], _LONG_S)


def damaged(image: Path) -> bool:
    """Whether its file system noted an error. What a crash left in the journal is none: mounting takes care of it."""
    with image.open("rb") as file:
        return bool(struct.unpack("<H", os.pread(file.fileno(), 2, 1024 + 0x3A))[0] & _ERRORS)


def check(image: Path, *, force: bool = False) -> None:
    """Repair an image that is not mounted: what is safe, and if that is not enough, whatever it takes.

    Raises:
        OSError: it cannot be repaired.
    """
    code, said = _try("e2fsck", ["-p", *(["-f"] if force else []), str(image)], _LONG_S)
    if code not in _CORRECTED:
        log.warning("%s: %s", image, said[-300:])
        code, said = _try("e2fsck", ["-y", "-f", str(image)], _LONG_S)
    if code not in _CORRECTED:
        raise OSError(errno.EUCLEAN, f"its file system cannot be repaired: {said.strip()[-200:]}", str(image))


def copy(source: Path, target: Path) -> bool:
    """Copy an image that holds still; only what is in it takes room. Returns whether its blocks are shared.

    Raises:
        OSError: no room, or it cannot be read; nothing of it is left.
    """
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        made = os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            return trees.copy_bytes(origin, made, os.fstat(origin).st_size)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(made)
    finally:
        os.close(origin)


def _try(name: str, arguments: list[str], within_s: float) -> tuple[int, str]:
    program = tool(name)
    if program is None:
        raise OSError(errno.ENOENT, f"{name} is not installed (package e2fsprogs)")
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C", "MKE2FS_CONFIG": "/dev/null"},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{name} did not end within {within_s} s") from None
    return done.returncode, done.stdout + done.stderr


def _run(name: str, arguments: list[str], within_s: float) -> None:
    code, said = _try(name, arguments, within_s)
    if code != 0:
        full = "No space left" in said
        raise OSError(errno.ENOSPC if full else errno.EIO, f"{name}: {said.strip()[-200:]}")
