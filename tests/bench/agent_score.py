"""How many small tasks the built-in agent solves on an embedded model, graded by what is in the files and answers.

    python tests/bench/agent_score.py [--model embedded/qwen2.5-coder-0.5b] [--set published|held-out|unseen|all]
        [--seeds 2] [--first-seed 1] [--only NAME,NAME] [--show] [--json FILE]

Every task runs through the real engine, store and sandbox in a fresh environment. A grader reads whole contents: a
file that is nearly right is wrong, and so is a run that changed a file it was only to read. Prints a line a run, then
each task that was not solved every time, and the sum; docs/models.md has the last published one. Nothing here depends
on the machine's speed: a run may take as long as it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from agent_tasks import held_out, published, unseen
from agent_tasks.grading import Task, Work

from interactd import app, paths
from interactd.nouns import GenerationConfig, Step

SETS = {"published": published.TASKS, "held-out": held_out.TASKS, "unseen": unseen.TASKS}
PATIENCE_S = 3600


@dataclass(frozen=True)
class Score:
    """One run: whether it was solved, and what there is to say of it."""

    task: str
    seed: int
    solved: bool
    status: str
    answer: str
    calls: int
    seconds: float


def shown(step: Step) -> str:
    """A step as somebody reads it who wants to know why a run failed."""
    if step.type.endswith("_call"):
        arguments = dict(step.body.get("arguments") or {})
        return "\n".join([str(step.body.get("name")), *(f"{name}: {value}" for name, value in arguments.items())])
    if step.type.endswith("_result"):
        return f"{'ERROR ' if step.body.get('is_error') else ''}{step.body.get('result')}"
    return step.text


async def run_one(application: app.App, task: Task, model: str, seed: int, *, show: bool) -> Score:
    """Run a task in an environment of its own, which is gone afterwards."""
    engine = application.engine
    began = time.perf_counter()
    sources = [{"type": "inline", "target": name, "content": text} for name, text in task.files.items()]
    environment = await application.environments.create({"sources": sources})
    session = await engine.create_session(agent="antigravity", model=model)
    sent = await engine.send_turn(
        session.id,
        task.text,
        environment=environment.id,
        generation_config=GenerationConfig(seed=seed),
        limits={"seconds": PATIENCE_S},
        background=True,
    )
    result = await engine.wait(sent.interaction.id, PATIENCE_S)
    if not result.interaction.terminal:
        await engine.cancel(sent.interaction.id)
    files = dict(task.files)
    for artifact in await engine.artifacts(sent.interaction.id):
        files[artifact.name] = artifact.path.read_text(errors="replace")
    there = await application.environments.files(environment.id, recursive=True)
    names = [str(entry["path"]) for entry in there]
    answer = "".join(step.text for step in result.steps if step.type == "model_output")
    if show:
        for step in result.steps:
            print(f"--- {step.type}\n{shown(step)}")
        print(f"--- files\n{files}")
    calls = sum(step.type.endswith("_call") for step in result.steps)
    status = result.interaction.status
    solved = status == "completed" and task.solved(Work(files, names, answer, result.steps))
    await engine.delete_session(session.id)
    await application.environments.delete(environment.id)
    return Score(task.name, seed, solved, status, answer, calls, time.perf_counter() - began)


def summary(model: str, scores: list[Score]) -> str:
    """What was not solved every time, and the sum."""
    tried = Counter(score.task for score in scores)
    done = Counter(score.task for score in scores if score.solved)
    lines = [f"  {task}: {done[task]} of {count}" for task, count in tried.items() if done[task] < count]
    return "\n".join([*lines, f"{model}: {sum(done.values())} of {len(scores)} runs solved, {len(tried)} tasks"])


async def main() -> int:
    """Run all and print; exit code 0 whatever the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--set", choices=[*SETS, "all"], default="published")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", help="names of tasks, with commas between them")
    parser.add_argument("--show", action="store_true", help="print every step of every run")
    parser.add_argument("--json", type=Path, help="write the runs to this file too")
    args = parser.parse_args()
    tasks = [task for name, tasks in SETS.items() if args.set in (name, "all") for task in tasks]
    if args.only:
        tasks = [task for task in tasks if task.name in args.only.split(",")]
    os.environ.setdefault("INTERACTD_WEIGHTS", str(paths.find().weights))
    scores: list[Score] = []
    with tempfile.TemporaryDirectory(prefix="interactd-score-") as home:
        application = app.build(paths.find({**os.environ, "INTERACTD_HOME": home}).make())
        await application.start()
        try:
            for task in tasks:
                for seed in range(args.first_seed, args.first_seed + args.seeds):
                    score = await run_one(application, task, args.model, seed, show=args.show)
                    scores.append(score)
                    verdict = "ok  " if score.solved else "FAIL"
                    print(
                        f"{verdict} {task.name:<15} seed {seed} {score.calls} calls {score.seconds:5.1f} s  "
                        f"{score.status}: {score.answer[:60]!r}"
                    )
                    sys.stdout.flush()
        finally:
            await application.aclose()
    if args.json:
        args.json.write_text(json.dumps([vars(score) for score in scores], indent=1))
    print(summary(args.model, scores))
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
