"""How many small tasks the built-in agent solves on an embedded model, graded by what is in the files and answers.

    python tests/bench/agent_score.py [--model embedded/qwen2.5-coder-0.5b] [--seeds 2] [--only NAME,NAME] [--show]

Every task runs through the real engine, store and sandbox in a fresh environment. A grader reads whole contents: a
file that is nearly right is wrong. Prints a line a run and the sum; docs/models.md has the last published one.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from interactd import app, paths
from interactd.nouns import GenerationConfig, Step

Files = Mapping[str, str]
Grader = Callable[[Files, str], bool]

DATA = "name,amount\napple,30\nbread,12\ncheese,58\n"
LOG = "ok start\nERROR disk\nok work\nERROR net\nok end\nERROR disk\n"


@dataclass(frozen=True)
class Task:
    """What is asked, what lies in the workspace before, and what must be true after."""

    name: str
    text: str
    grade: Grader
    files: Mapping[str, str] = field(default_factory=dict[str, str])


def number(files: Files, name: str, value: float) -> bool:
    """Whether the file holds exactly this number, however it is written."""
    try:
        return float(files[name].strip()) == value
    except (KeyError, ValueError):
        return False


def says(answer: str, value: str) -> bool:
    """Whether the answer has this number or word, standing by itself."""
    return re.search(rf"(?<![\w.]){re.escape(value)}(?![\w]|\.\d)", answer.replace(",", "")) is not None


def lines(files: Files, name: str) -> list[str]:
    return [line.strip() for line in files.get(name, "").strip().splitlines()]


def rows(files: Files, name: str) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(files.get(name, "")))]


def parsed(files: Files, name: str) -> object:
    try:
        return json.loads(files.get(name, ""))
    except ValueError:
        return None


PRIMES = [n for n in range(2, 50) if all(n % d for d in range(2, n))]

TASKS = [
    Task(
        "squares",
        "Compute the sum of the squares of the numbers from 1 to 100 and write it to result.txt.",
        lambda f, a: number(f, "result.txt", 338350),
    ),
    Task(
        "demo",
        "Compute the sum of the squares of the numbers from 1 to 100 with Python, write it to result.txt, "
        "then read the file back.",
        lambda f, a: number(f, "result.txt", 338350),
    ),
    Task(
        "power", "Compute 2 to the power of 64 and write it to power.txt.", lambda f, a: number(f, "power.txt", 2**64)
    ),
    Task("product", "What is 1234 * 5678? Compute it with Python.", lambda f, a: says(a, "7006652")),
    Task(
        "factorial",
        "Compute the factorial of 20 with Python and tell me the number.",
        lambda f, a: says(a, "2432902008176640000"),
    ),
    Task(
        "primes",
        "Write all prime numbers below 50 to primes.txt, one number on each line.",
        lambda f, a: lines(f, "primes.txt") == [str(n) for n in PRIMES],
    ),
    Task(
        "hello",
        "Make a file hello.txt that contains the text: Hello, world!",
        lambda f, a: f.get("hello.txt", "").strip() == "Hello, world!",
    ),
    Task(
        "three_lines",
        "Write a file colors.txt with three lines: red, green, blue. One word on each line.",
        lambda f, a: lines(f, "colors.txt") == ["red", "green", "blue"],
    ),
    Task(
        "read_secret",
        "What is the word in secret.txt?",
        lambda f, a: says(a, "marmalade"),
        {"secret.txt": "marmalade\n"},
    ),
    Task(
        "count_files",
        "How many files are in the folder /workspace?",
        lambda f, a: says(a, "3") or says(a.lower(), "three"),
        {"a.txt": "1", "b.txt": "2", "c.txt": "3"},
    ),
    Task(
        "count_lines",
        "How many lines does log.txt have?",
        lambda f, a: says(a, "6") or says(a.lower(), "six"),
        {"log.txt": LOG},
    ),
    Task(
        "count_errors",
        "How many lines of log.txt begin with ERROR? Count them with Python.",
        lambda f, a: says(a, "3") or says(a.lower(), "three"),
        {"log.txt": LOG},
    ),
    Task(
        "column_sum",
        "The file data.csv has the columns name and amount. "
        "Compute the sum of the amount column and write it to sum.txt.",
        lambda f, a: number(f, "sum.txt", 100),
        {"data.csv": DATA},
    ),
    Task(
        "upper",
        "Read name.txt, convert its text to upper case and write it to upper.txt.",
        lambda f, a: f.get("upper.txt", "").strip() == "ADA LOVELACE",
        {"name.txt": "Ada Lovelace\n"},
    ),
    Task(
        "reverse",
        "Reverse the word 'stressed' with Python and tell me the result.",
        lambda f, a: says(a.lower(), "desserts"),
    ),
    Task(
        "csv",
        "Create cities.csv with the header city,population and the two rows Paris,2100000 and Rome,2800000.",
        lambda f, a: rows(f, "cities.csv") == [["city", "population"], ["Paris", "2100000"], ["Rome", "2800000"]],
    ),
    Task(
        "json",
        "Write a file user.json with a JSON object that has the keys "
        '"name" with the value "Ada" and "age" with the value 36.',
        lambda f, a: parsed(f, "user.json") == {"name": "Ada", "age": 36},
    ),
    Task(
        "sort",
        "Sort the lines of names.txt alphabetically and write them to sorted.txt.",
        lambda f, a: lines(f, "sorted.txt") == ["Ada", "Ben", "Cleo", "Dan"],
        {"names.txt": "Cleo\nAda\nDan\nBen\n"},
    ),
    Task(
        "fibonacci",
        "Write the first 10 Fibonacci numbers, starting with 0 and 1, to fib.txt, one number on each line.",
        lambda f, a: lines(f, "fib.txt") == ["0", "1", "1", "2", "3", "5", "8", "13", "21", "34"],
    ),
    Task(
        "words",
        "Count the words in text.txt with Python and write the count to words.txt.",
        lambda f, a: number(f, "words.txt", 9),
        {"text.txt": "the quick brown fox jumps over the lazy dog\n"},
    ),
    Task(
        "average",
        "Compute the average of 12, 15, 18 and 21 with Python and write it to average.txt.",
        lambda f, a: number(f, "average.txt", 16.5),
    ),
    Task(
        "replace",
        "In note.txt replace the word cat by the word dog. Keep the file name.",
        lambda f, a: f.get("note.txt", "").strip() == "My dog sleeps. A dog eats.",
        {"note.txt": "My cat sleeps. A cat eats.\n"},
    ),
    Task(
        "bash",
        "Use bash to make a folder named reports with an empty file today.txt in it.",
        lambda f, a: f.get("reports/today.txt", "x").strip() == "",
    ),
]


def shown(step: Step) -> str:
    """A step as somebody reads it who wants to know why a run failed."""
    if step.type.endswith("_call"):
        arguments = dict(step.body.get("arguments") or {})
        return "\n".join([str(step.body.get("name")), *(f"{name}: {value}" for name, value in arguments.items())])
    if step.type.endswith("_result"):
        return f"{'ERROR ' if step.body.get('is_error') else ''}{step.body.get('result')}"
    return step.text


async def run_one(
    application: app.App, task: Task, model: str, seed: int, *, show: bool
) -> tuple[bool, str, float, int]:
    """Run a task; returns whether it was solved, the status and answer, the seconds, and the number of calls."""
    engine = application.engine
    began = time.perf_counter()
    sources = [{"type": "inline", "target": name, "content": text} for name, text in task.files.items()]
    environment = await application.environments.create({"sources": sources})
    session = await engine.create_session(agent="antigravity", model=model)
    config = GenerationConfig(seed=seed)
    sent = await engine.send_turn(
        session.id, task.text, environment=environment.id, generation_config=config, background=True
    )
    result = await engine.wait(sent.interaction.id, 240)
    if not result.interaction.terminal:
        await engine.cancel(sent.interaction.id)
    files = dict(task.files)
    for artifact in await engine.artifacts(sent.interaction.id):
        files[artifact.name] = artifact.path.read_text(errors="replace")
    if show:
        for step in result.steps:
            print(f"--- {step.type}\n{shown(step)}")
        print(f"--- files\n{files}")
    answer = "".join(step.text for step in result.steps if step.type == "model_output")
    calls = sum(step.type.endswith("_call") for step in result.steps)
    solved = result.interaction.status == "completed" and task.grade(files, answer)
    await engine.delete_session(session.id)
    await application.environments.delete(environment.id)
    return solved, f"{result.interaction.status}: {answer[:60]!r}", time.perf_counter() - began, calls


async def main() -> int:
    """Run all and print; exit code 0 whatever the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", help="names of tasks, with commas between them")
    parser.add_argument("--show", action="store_true", help="print every step of every run")
    args = parser.parse_args()
    os.environ.setdefault("INTERACTD_WEIGHTS", str(paths.find().weights))
    with tempfile.TemporaryDirectory(prefix="interactd-score-") as home:
        application = app.build(paths.find({**os.environ, "INTERACTD_HOME": home}).make())
        await application.start()
        total = solved = 0
        try:
            for task in TASKS:
                if args.only and task.name not in args.only.split(","):
                    continue
                for seed in range(args.first_seed, args.first_seed + args.seeds):
                    good, shown, seconds, calls = await run_one(application, task, args.model, seed, show=args.show)
                    total, solved = total + 1, solved + good
                    verdict = "ok  " if good else "FAIL"
                    print(f"{verdict} {task.name:<13} seed {seed} {calls} calls {seconds:5.1f} s  {shown}")
                    sys.stdout.flush()
        finally:
            await application.aclose()
    print(f"{args.model}: {solved} of {total} runs solved ({args.seeds} seeds)")
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
