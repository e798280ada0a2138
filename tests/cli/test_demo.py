"""What the demo makes of a transcript: it only says that a file was read back when a step did that."""

from __future__ import annotations

import pytest

from interactd.cli.demo import done_in

USER = "[user]\nCompute it, write it to result.txt, then read the file back.\n\n"
RUN = """[runs python, call_id=c1]
total = sum([n * n for n in range(101)])
with open("result.txt", "w") as f:
    f.write(str(total))
print(total)

[output, call_id=c1]
338350

"""
VIEW = '[calls view_file, call_id=c2]\n{"path":"result.txt"}\n\n[result of view_file, call_id=c2]\n1\t338350\n\n'
WRITE = (
    '[calls write_file, call_id=c3]\n{"path":"result.txt","content":"338350"}\n\n'
    "[result of write_file, call_id=c3]\nWrote result.txt: 1 lines, 6 bytes.\n\n"
)
READS = '[runs python, call_id=c4]\nprint(open("result.txt").read())\n\n[output, call_id=c4]\n338350\n\n'
ANSWER = "[model]\nIt is 338350, as result.txt says.\n"


@pytest.mark.parametrize(
    ("steps", "done"),
    [
        (RUN + VIEW, [True, True, True]),
        (RUN + READS, [True, True, True]),
        (RUN, [True, True, False]),
        (VIEW + RUN, [True, True, False]),
        (WRITE + VIEW, [False, True, True]),
        (RUN + VIEW.replace("[result of", "[error of"), [True, True, False]),
        (RUN + VIEW.replace("338350", "12"), [True, True, False]),
        ("", [False, False, False]),
    ],
)
def test_what_was_done_is_read_from_the_steps_and_not_from_the_answer(steps: str, done: list[bool]) -> None:
    assert list(done_in(USER + steps + ANSWER).values()) == done
