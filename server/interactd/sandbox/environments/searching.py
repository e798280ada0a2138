"""The program that searches a workspace, run in its sandbox: patterns and files are both untrusted."""

from __future__ import annotations

from typing import Final

SCRIPT: Final = r"""
import json, os, re, stat, sys
asked = json.loads(sys.argv[1])
try:
    pattern = re.compile(asked["pattern"])
except re.error as error:
    sys.stderr.write("not a regular expression: %s" % error)
    sys.exit(2)
left = asked["limit"]
start = os.path.join("/workspace", asked["path"])
skip = {".git", "__pycache__", "node_modules", ".venv"}
def shown(path):
    out = []
    for c in path:
        code = ord(c)
        if c == "\\": out.append("\\\\")
        elif c.isprintable(): out.append(c)
        elif c in "\n\r\t": out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[c])
        elif 0xdc80 <= code <= 0xdcff: out.append("\\x%02x" % (code - 0xdc00))
        elif code < 0x80: out.append("\\x%02x" % code)
        else: out.append("\\u%04x" % code if code <= 0xffff else "\\U%08x" % code)
    return "".join(out)
def look(path):
    global left
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > 50000000:
            return
        data = file.read(50000000)
    if b"\0" in data[:4096]:
        return
    name = shown(path[len("/workspace/"):] if path.startswith("/workspace/") else path)
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if pattern.search(line[:100000]):
            print(json.dumps({"path": name, "line": number, "text": line[:1000]}))
            left -= 1
            if left <= 0:
                sys.exit(0)
if os.path.isfile(start):
    look(os.path.normpath(start))
for folder, folders, files in os.walk(os.path.normpath(start)):
    folders[:] = sorted(name for name in folders if name not in skip)
    for name in sorted(files):
        look(os.path.join(folder, name))
"""
