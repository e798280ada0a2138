"""The persistent Python of an environment, as its user and as an attacker."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from interactd.sandbox.environments.kernel.talk import source
from sandbox.environments.kit import World, sandboxed, until_sandboxed

pytestmark = pytest.mark.anyio


async def test_names_stay_and_the_last_expression_is_shown_as_in_a_notebook(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        first = await space.run_python("import math\nx = 40\nprint('made')\nx + 2")
        second = await space.run_python("x, _, math.floor(2.5)")
        silent = await space.run_python("x + 1;")
        awaited = await space.run_python("import asyncio\nawait asyncio.sleep(0, 'slept')")
    assert (first.output, first.exit.code, first.state_lost) == ("made\n42\n", 0, False)
    assert second.output == "(40, 42, 2)\n"
    assert silent.output == ""
    assert awaited.output == "'slept'\n"


async def test_names_stay_from_one_run_to_the_next(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python("kept = [1, 2]")
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python("kept")
    assert (ran.output, ran.state_lost) == ("[1, 2]\n", False)


async def test_an_exception_shows_the_line_and_nothing_of_the_kernel(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python("def f(n):\n    return 1 / n\n\nf(0)")
        deep = await space.run_python("def g(): return g()\ng()")
        long = await space.run_python("raise ValueError('x' * 100_000)")
        syntax = await space.run_python("if True\n  pass")
        still = await space.run_python("f(4)")
    assert ran.exit.code == 1
    assert ran.output.startswith("Traceback")
    assert "return 1 / n" in ran.output
    assert "ZeroDivisionError" in ran.output
    assert "self." not in ran.output
    assert "<string>" not in ran.output
    assert "RecursionError" in deep.output
    assert len(deep.output.splitlines()) < 80
    assert len(long.output) < 5000
    assert "ValueError" in long.output
    assert "SyntaxError" in syntax.output
    assert still.output == "0.25\n"


async def test_leaving_is_not_dying(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        one = await space.run_python("here = 1\nimport sys\nsys.exit(3)")
        two = await space.run_python("exit()")
        three = await space.run_python("input()")
        last = await space.run_python("here")
    assert (one.exit.code, two.exit.code) == (3, 0)
    assert "EOFError" in three.output
    assert (last.output, last.state_lost) == ("1\n", False)


async def test_a_killed_kernel_says_that_its_state_is_gone(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python("x = 1")
        killed = await space.run_python("import os; os._exit(7)")
        after = await space.run_python("x")
        again = await space.run_python("1")
    assert killed.exit.code == 7
    assert "names defined so far are gone" in killed.output
    assert after.state_lost
    assert "NameError" in after.output
    assert not again.state_lost


async def test_state_lost_is_told_after_a_restart_of_the_daemon_too(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python("x = 1")
    await w.restart()
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_python("1")).state_lost


async def test_a_time_out_interrupts_and_the_names_stay(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python("x = 5\nimport time")
        ran = await space.run_python("print('begun')\ntime.sleep(60)", wall_s=0.2)
        busy = await space.run_python("while True: x += 1", wall_s=0.2)
        after = await space.run_python("x > 5")
    assert ran.exit.why == "timeout"
    assert ran.output.startswith("begun")
    assert "still there" in ran.output
    assert busy.exit.why == "timeout"
    assert busy.exit.wall_s < 1
    assert (after.output, after.state_lost) == ("True\n", False)


async def test_code_that_will_not_stop_is_killed_and_says_so(w: World) -> None:
    environment = await w.environments.create({})
    stubborn = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass"
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python(stubborn, wall_s=0.2)
        after = await space.run_python("1")
    assert ran.exit.why == "timeout"
    assert ran.exit.wall_s < 5
    assert "gone" in ran.output
    assert after.state_lost
    assert after.output == "1\n"


async def test_a_flood_is_cut_and_counted(w: World) -> None:
    environment = await w.environments.create({"limits": {"output_bytes": 200_000}})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python("while True: print('y' * 1000)", wall_s=30)
        modest = await space.run_python("print('a' * 150_000)")
        bash = await space.run_bash("yes", wall_s=30)
    assert ran.exit.why == "output"
    assert ran.truncated
    assert len(ran.output) < 110_000
    assert "bytes left out here" in ran.output
    assert modest.exit.code == 0
    assert modest.truncated
    assert modest.output.endswith("a\n")
    assert bash.exit.why == "output"
    assert len(bash.output) < 110_000


async def test_hostile_frames_from_the_kernel_only_end_their_own_request(w: World) -> None:
    environment = await w.environments.create({})
    find_answers = "import os, sys, gc\nk = next(o for o in gc.get_objects() if type(o).__name__ == 'Kernel')\n"
    forge = "os.write(k.answers, b'\\0' + k.running.encode() + %s)\n"
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        odd = await space.run_python("import os\nos.write(1, b'\\0\\0' + b'0' * 32 + b' {}\\0 after')\nNone")
        early = await space.run_python(find_answers + forge % 'b\' {"ok": true, "code": 99999}\\0\'')
        wrong = await space.run_python(forge % "b' [1, 2\\0'")
        endless = await space.run_python(forge % "b' ' + b'x' * 100_000", wall_s=5)
        answers = [await space.run_python(f"print({n})") for n in range(3)]
    assert "after" in odd.output
    assert odd.exit.code == 0
    assert early.exit.why == wrong.exit.why == endless.exit.why == "exit"
    # Whatever the forged answers left in the pipe, a later request is answered by its own nonce only.
    assert [a.output.strip()[-1] for a in answers] == ["0", "1", "2"]


async def test_a_forked_child_does_not_answer_for_the_kernel(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('twice')")
        after = await space.run_python("print('one')")
    assert ran.output == "twice\ntwice\n"
    assert after.output == "one\n"


async def test_nothing_that_a_run_started_goes_on_after_it(w: World) -> None:
    environment = await w.environments.create({})
    background = (
        "import subprocess, os\nx = 1\n"
        "subprocess.Popen(['sleep', '86311'])\n"
        "subprocess.Popen('setsid sleep 86312 & disown', shell=True)\n"
        "if os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0: os.execvp('sleep', ['sleep', '86313'])\n    os._exit(0)"
    )
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python(background)
        await space.run_bash("setsid nohup sleep 86314 >/dev/null 2>&1 &")
        assert sandboxed("86311"), "the positive control: it runs while the run does"
    assert [n for n in ("86311", "86312", "86313", "86314") if sandboxed(n)] == []
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_python("x")).output == "1\n"


async def test_a_thread_that_goes_on_costs_the_kernel_its_life(w: World) -> None:
    environment = await w.environments.create({})
    thread = "import threading, time\nthreading.Thread(target=lambda: time.sleep(600)).start()"
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python(thread)
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_python("threading")).state_lost


async def test_cancelling_a_call_stops_its_code_within_two_seconds(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        began = asyncio.Event()
        code = "import subprocess\nprint('go')\nsubprocess.run(['sleep', '86321'])"
        call = asyncio.create_task(space.run_python(code, on_output=lambda _: began.set()))
        await asyncio.wait_for(began.wait(), 20)
        call.cancel()
        since = time.monotonic()
        await asyncio.wait({call}, timeout=5)
        assert time.monotonic() - since < 2
        assert call.cancelled()
        assert not sandboxed("86321")
        bash = asyncio.create_task(space.run_bash("echo go; trap '' TERM; sleep 86322"))
        await until_sandboxed("86322")
        bash.cancel()
        await asyncio.wait({bash}, timeout=5)
        assert not sandboxed("86322")
        assert (await space.run_python("1")).state_lost


async def test_a_cancelled_run_leaves_no_process_and_no_sandbox(w: World) -> None:
    environment = await w.environments.create({})
    begun = asyncio.Event()

    async def run(id: str) -> None:
        async with w.environments.lease(environment.id, id) as space:
            await space.run_python("x = 1\nprint('go')", on_output=lambda _: begun.set())
            await space.run_bash("sleep 86331")

    task = asyncio.create_task(run(await w.interaction()))
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
    assert not sandboxed("86331")


async def test_bash_says_how_it_ended_and_takes_scripts_of_any_length(w: World) -> None:
    environment = await w.environments.create({})
    pieces: list[bytes] = []
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_bash("echo out; echo err >&2; exit 3", on_output=pieces.append)
        long = await space.run_bash("# " + "x" * 300_000 + "\necho long; exit 4")
        slow = await space.run_bash("sleep 60", wall_s=0.2)
        packages = await space.run_bash("pip --version >/dev/null 2>&1; echo $HOME; touch ~/.kept")
    assert sorted(ran.output.split()) == ["err", "out"]
    assert ran.exit.code == 3
    assert b"".join(pieces)
    assert (long.output, long.exit.code) == ("long\n", 4)
    assert slow.exit.why == "timeout"
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_bash("ls ~/.kept")).exit.code == 0, packages.output


async def test_a_sandbox_that_died_is_replaced_before_the_next_call(w: World) -> None:
    environment = await w.environments.create({"limits": {"memory_mb": 96, "wall_s": 20}})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python("x = 1")
        await space.run_bash("kill -9 -1")
        await space.run_python("b = bytearray(500_000_000)")
        ran = await space.run_bash("echo well")
        assert (await space.run_python("2 + 2")).output == "4\n"
    assert ran.output == "well\n"


async def test_a_warm_call_takes_less_than_five_milliseconds(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python("x = 0")
        times: list[float] = []
        for _ in range(100):
            began = time.perf_counter()
            await space.run_python("x += 1")
            times.append(time.perf_counter() - began)
    assert sorted(times)[50] < 0.005, f"{sorted(times)[50] * 1000:.2f} ms"


async def test_a_kernel_that_was_started_ahead_is_the_one_that_runs_the_code(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        space.warm()
        space.warm()
        await until_sandboxed(source())
        # Nothing has run in it: its end is no loss.
        for pid in sandboxed(source()):
            os.kill(pid, signal.SIGKILL)
        ran = await space.run_python("import os\nmine = os.getpid()")
        again = await space.run_python("mine == os.getpid()")
    assert not ran.state_lost
    assert (again.output, again.state_lost) == ("True\n", False)


async def test_a_lease_that_ends_while_its_kernel_starts_leaves_nothing(w: World) -> None:
    environment = await w.environments.create({})
    for after_s in (0.0, 0.005, 0.02, 0.04, 0.06, 0.09):
        async with w.environments.lease(environment.id, await w.interaction()) as space:
            space.warm()
            await asyncio.sleep(after_s)
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python("1")
    assert (ran.output, ran.state_lost) == ("1\n", False)
