"""A plain HTTP download that goes on where an earlier one stopped.

The part file always holds a prefix of the wanted file, whichever source it came from, so any source can continue it.
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx2

from interactd.models.embedded.weights.files import Cancel, Progress, Pulse, Report, private
from interactd.models.embedded.weights.table import Url, Weights

CONNECT_S = 5.0
SILENCE_S = 30.0
_FRUITLESS_TRIES = 3


class SourceFailed(Exception):
    """This source cannot deliver; the sentence says why. The next source may."""


def fetch(source: Url, entry: Weights, part: Path, report: Report, cancel: Cancel) -> None:
    """Bring `part` to its full length from a URL. A broken connection is taken up again while it still brings bytes.

    Raises:
        SourceFailed: the source cannot deliver this file. What arrived is kept.
        OSError: the disk refused.
        Cancelled: asked to stop.
    """
    fruitless = 0
    timeout = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
    with httpx2.Client(timeout=timeout, follow_redirects=True) as client:
        while (have := size(part)) < entry.bytes:
            cancel.check()
            try:
                _once(client, source, entry, part, have, report, cancel)
                problem = "it ended before the last byte"
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                problem = f"cannot connect ({_words(error)})"
                if have == size(part):
                    raise SourceFailed(problem) from error
            except httpx2.TransportError as error:
                problem = f"the connection broke ({_words(error)})"
            except httpx2.HTTPError as error:
                raise SourceFailed(_words(error)) from error
            fruitless = 0 if size(part) > have else fruitless + 1
            if fruitless >= _FRUITLESS_TRIES:
                raise SourceFailed(problem)
            if fruitless:
                cancel.sleep(0.2 * 2**fruitless)


def _once(
    client: httpx2.Client, source: Url, entry: Weights, part: Path, have: int, report: Report, cancel: Cancel
) -> None:
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    pulse = Pulse(report)
    with client.stream("GET", source.url, headers=headers) as response:
        skip = _offset(response, entry, have)
        with private(part, os.O_WRONLY) as file:
            file.seek(have)
            # No chunk size: it would hold bytes back, and a broken connection would lose them.
            for block in response.iter_raw():
                cancel.check()
                if skip:
                    # A server that knows no Range sends everything again; what we have already stays as it is.
                    skip, block = max(0, skip - len(block)), block[skip:]
                if have + len(block) > entry.bytes:
                    raise SourceFailed(f"it sends more than the {entry.bytes} bytes of this file")
                file.write(block)
                have += len(block)
                pulse(Progress("downloading", have, entry.bytes, str(source)))


def _offset(response: httpx2.Response, entry: Weights, have: int) -> int:
    """Check the answer's head; return how many bytes of the body we have already."""
    if response.status_code == 206:
        span = response.headers.get("content-range", "")
        wanted = f"bytes {have}-"
        if not span.startswith(wanted) or not span.endswith((f"/{entry.bytes}", "/*")):
            raise SourceFailed(f"it answered with another range than asked for ({span or 'none'})")
        return 0
    if response.status_code != 200:
        raise SourceFailed(f"HTTP {response.status_code} {response.reason_phrase}".strip())
    length = response.headers.get("content-length")
    if length is not None and length != str(entry.bytes):
        raise SourceFailed(f"it offers {length} bytes where this file has {entry.bytes}")
    return have


def size(path: Path) -> int:
    """Return a file's size, 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
