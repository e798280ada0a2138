"""The text form of an agent's calls: what is written can be read back, and what may come next follows from the turn."""

from __future__ import annotations

import pytest

from interactd.models.embedded.calls import agent
from interactd.models.embedded.calls.progress import MAX_CALLS, turn, without_dead_end
from interactd.nouns import Json, Step, text_content, user_input

TOOLS: list[Json] = [
    {"type": "function", "name": name}
    for name in ("code_execution", "delete_file", "list_dir", "url_fetch", "view_file", "write_file")
]
TASK = "Compute the sum of the amount column of data.csv and write it to sum.txt."


def call(number: int, name: str, **arguments: str) -> Step:
    return Step("function_call", {"id": f"call_{number}", "name": name, "arguments": arguments})


def result(number: int, name: str, text: str, *, error: bool = False) -> Step:
    return Step(
        "function_result",
        {"call_id": f"call_{number}", "name": name, "result": [text_content(text)], "is_error": error},
    )


def asked(text: str) -> Step:
    return user_input(text)


def ran(number: int, code: str, text: str, *, error: bool = False) -> list[Step]:
    return [
        call(number, "code_execution", language="python", code=code),
        result(number, "code_execution", text, error=error),
    ]


def viewed(number: int, path: str, text: str) -> list[Step]:
    return [call(number, "view_file", path=path), result(number, "view_file", text)]


def root(*steps: Step) -> str:
    return agent.grammar(TOOLS, "auto", steps).partition("\n")[0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("code_execution", {"language": "python", "code": "for n in range(3):\n    print(n)"}),
        ("code_execution", {"language": "bash", "code": "ls -l"}),
        ("write_file", {"path": "notes/a.txt", "content": "one\n\ntwo\n"}),
        ("view_file", {"path": "a.txt"}),
        ("list_dir", {}),
        ("url_fetch", {"url": "https://example.org/"}),
    ],
)
def test_a_call_that_is_written_is_read_back_the_same(name: str, arguments: dict[str, str]) -> None:
    assert agent.parse(agent.render_call(call(1, name, **arguments))) == (name, arguments)


@pytest.mark.parametrize("text", ["RUN\n```python\nprint(1)", "WRITE a.txt\n```\nhalf", "READ ", "Hello"])
def test_what_was_cut_off_is_no_call(text: str) -> None:
    assert agent.parse(text) is None


def test_small_talk_may_be_answered_at_once() -> None:
    assert "ANSWER" in root(asked("Hello, who are you?"))


def test_a_task_with_a_computation_begins_with_a_program_and_not_with_an_answer_or_a_guess() -> None:
    first = root(asked(TASK))
    assert "RUN" in first
    assert "ANSWER" not in first
    assert "WRITE" not in first


def test_only_files_that_can_be_there_are_offered_for_reading() -> None:
    assert '"READ " ("data.csv")' in root(asked(TASK))


def test_an_answer_may_come_once_the_named_files_were_dealt_with() -> None:
    half = ran(1, "print(open('data.csv').read())", "a,b")
    assert "ANSWER" not in root(asked(TASK), *half)
    whole = ran(2, "open('sum.txt', 'w').write(str(total)); print(total)", "100")
    made = [asked(TASK), *half, *whole]
    assert root(*made) == 'root ::= "READ " ("sum.txt")', "what was made is looked at first"
    done = root(*made, *viewed(3, "sum.txt", "1\t100"))
    assert done.startswith('root ::= "ANSWER')


def test_after_an_error_it_must_try_again_and_after_three_it_may_give_up() -> None:
    steps = [asked(TASK), *ran(1, "open('data.csv'); a", "NameError: a", error=True)]
    assert "ANSWER" not in root(*steps)
    steps += ran(2, "open('data.csv'); b", "NameError: b", error=True)
    steps += ran(3, "open('data.csv'); c", "NameError: c", error=True)
    assert "ANSWER" in root(*steps)


def test_a_file_that_was_written_is_not_written_again() -> None:
    steps = [
        asked("Make a file hello.txt with the text Hi"),
        call(1, "write_file", path="hello.txt", content="Hi\n"),
        result(1, "write_file", "Wrote hello.txt: 1 lines, 3 bytes."),
    ]
    assert "WRITE" not in root(*steps)
    shown = agent.render_result(steps[-1], turn(steps))
    assert "bytes" not in shown
    assert "READ hello.txt" in shown
    steps += viewed(2, "hello.txt", "1\tHi")
    assert "ANSWER" in agent.render_result(steps[-1], turn(steps))


def test_the_same_call_twice_or_too_many_calls_leave_only_the_answer() -> None:
    again = [*ran(1, "print(1)", "1"), *ran(2, "print(1)", "1")]
    assert root(asked("Look around"), *again).startswith('root ::= "ANSWER')
    many = [step for number in range(MAX_CALLS) for step in ran(number, f"print({number})", "1")]
    assert root(asked("Look around"), *many).startswith('root ::= "ANSWER')


def test_a_new_input_begins_a_new_turn() -> None:
    again = [*ran(1, "print(1)", "1"), *ran(2, "print(1)", "1")]
    assert "RUN" in root(asked("Look around"), *again, asked("And now count the files"))


def test_a_mistake_made_twice_is_left_out_and_what_went_well_stays() -> None:
    good = ran(1, "print(2)", "2")
    bad = [*ran(2, "a", "NameError", error=True), *ran(3, "a", "NameError", error=True)]
    steps = [asked(TASK), *good, *bad]
    assert without_dead_end(steps) == steps[:3]
    assert without_dead_end(steps[:5]) == steps[:5]


def test_a_missing_module_is_answered_with_what_there_is() -> None:
    steps = [asked(TASK), *ran(1, "import pandas", "ModuleNotFoundError: No module named 'pandas'", error=True)]
    shown = agent.render_result(steps[-1], turn(steps))
    assert "pandas is not there" in shown
    assert "csv.DictReader" in shown


def test_the_beginning_of_the_prompt_is_the_same_bytes_and_short() -> None:
    text = agent.system(None, TOOLS)
    assert text == agent.system(None, TOOLS)
    assert len(text) < 1_200


def line(grammar: str, rule: str) -> str:
    return next(line for line in grammar.splitlines() if line.startswith(f"{rule} ::="))


def test_modules_that_are_not_there_cannot_be_imported_unless_the_user_speaks_of_them() -> None:
    def code(task: str, *steps: Step) -> str:
        return line(agent.grammar(TOOLS, "auto", [asked(task), *steps]), "first")

    plain = code(TASK)
    assert all(f'"{letter}"' in plain for letter in "pandas")
    without = code("Sum the column with pandas and numpy, matplotlib, scipy, sklearn, requests. " + TASK)
    assert len(without) < len(plain)


def test_what_is_given_back_as_text_is_no_keyword() -> None:
    filled = line(agent.grammar(TOOLS, "auto", [asked("Make a file a.txt with the word RUN")]), "filled")
    assert "R" in filled.partition("rest")[0]


def test_an_answer_quotes_the_number_that_a_program_found() -> None:
    steps = [asked("What is 1234 * 5678? Compute it."), *ran(1, "print(1234 * 5678)", "7006652")]
    assert '"7006652"' in root(*steps)
    assert '"1234"' in root(*steps), "numbers of the task may be said before it"
    word = [asked("Reverse 'live' with Python"), *ran(1, "print('live'[::-1])", "evil")]
    assert root(*word).startswith('root ::= "ANSWER\\nevil"')
    long = [asked("Look around with Python"), *ran(1, "print(1)", "x" * 200)]
    assert "xxx" not in root(*long)


def test_a_number_that_was_asked_for_is_insisted_on() -> None:
    task = asked("How many lines of a.log hold the word ERROR?")
    listed = [task, *ran(1, "for x in open('a.log'): print(x)", "ERROR 1\nERROR 2\nERROR 3")]
    assert "ANSWER" not in root(*listed)
    assert "one number" in agent.render_result(listed[-1], turn(listed))
    assert "ANSWER" in root(*listed, *ran(2, "print(len(open('a.log')))", "3"))


def test_a_file_on_one_line_is_written_again_when_lines_were_asked_for() -> None:
    task = asked("Write the first 4 even numbers to even.txt, each on its own line.")
    made = [task, *ran(1, "open('even.txt', 'w').write('2468')", "(no output)")]
    wrong = [*made, *viewed(2, "even.txt", "1\t2468")]
    assert "ANSWER" not in root(*wrong)
    assert "has 1 line; the task wants 4" in agent.render_result(wrong[-1], turn(wrong))
    right = [*made, *viewed(2, "even.txt", "1\t2\n2\t4\n3\t6\n4\t8")]
    assert "ANSWER" in root(*right)


def test_a_file_that_is_to_be_changed_must_have_changed() -> None:
    task = asked("In a.txt replace x by y.")
    assert root(task) == 'root ::= "READ " ("a.txt")'
    seen = [task, *viewed(1, "a.txt", "1\tx")]
    other = ran(2, "t = open('a.txt').read()\nopen('b.txt', 'w').write(t.replace('x', 'y'))", "(no output)")
    assert "READ" not in root(*seen, *other)
    assert "ANSWER" not in root(*seen, *other)
    same = [*ran(2, "open('a.txt', 'w').write('x')", "(no output)"), *viewed(3, "a.txt", "1\tx")]
    assert "ANSWER" not in root(*seen, *same)
    good = [*ran(2, "open('a.txt', 'w').write('y')", "(no output)"), *viewed(3, "a.txt", "1\ty")]
    assert "ANSWER" in root(*seen, *good)


def test_a_program_that_is_to_be_run_is_run() -> None:
    task = asked("Write a Python script hi.py that prints Hi, and run it.")
    steps = [task, call(1, "write_file", path="hi.py", content="print('Hi')\n"), result(1, "write_file", "Wrote hi.py")]
    assert root(*steps).startswith('root ::= "RUN')
    assert "python3 hi.py" in agent.render_result(steps[-1], turn(steps))


def test_a_text_is_written_as_the_task_has_it() -> None:
    task = asked("Save the words Good Night, Moon in a.txt.")

    def made(text: str) -> list[Step]:
        done = [call(1, "write_file", path="a.txt", content=f"{text}\n"), result(1, "write_file", "Wrote a.txt")]
        return [task, *done, *viewed(2, "a.txt", f"1\t{text}")]

    wrong = made("good night, moon")
    assert root(*wrong).startswith('root ::= "WRITE "')
    assert agent.render_result(wrong[-1], turn(wrong)).endswith("WRITE a.txt again: Good Night, Moon")
    assert line(agent.grammar(TOOLS, "auto", wrong), "filled").startswith('filled ::= "Good Night, Moon" rest')
    assert root(*made("Good Night, Moon")).startswith('root ::= "ANSWER')
    assert root(*made("something else")).startswith('root ::= "ANSWER')


def test_a_program_that_fails_may_be_written_again() -> None:
    task = asked("Write a Python script hi.py that prints Hi, and run it.")
    wrote = [call(1, "write_file", path="hi.py", content="print('Hi'\n"), result(1, "write_file", "Wrote hi.py")]
    failed = [
        call(2, "code_execution", language="bash", code="python3 hi.py"),
        result(2, "code_execution", "SyntaxError", error=True),
    ]
    assert '"WRITE " ("hi.py")' in root(task, *wrote, *failed)


def test_a_fence_may_end_with_its_line_and_no_line_looks_like_one() -> None:
    grammar = agent.grammar(TOOLS, "auto", [asked("Write the text Good night to a.txt")])
    assert grammar.partition("\n")[0].endswith('"```" "\\n"?')
    assert line(grammar, "text").startswith('text ::= ([^\\n`] rest | "`" ([^\\n`] rest)?)?')
    assert agent.parse("WRITE a.txt\n```\nGood night\n```\n") == agent.parse("WRITE a.txt\n```\nGood night\n```")


def test_demands_end_after_some_calls() -> None:
    steps = [asked(TASK)]
    for number in range(8):
        steps += ran(number, f"print({number})", str(number))
    assert "ANSWER" in root(*steps)


def test_a_good_call_made_twice_in_vain_is_left_out_of_the_next_prompt() -> None:
    task = asked("How many lines of a.log hold the word ERROR?")
    listed = ran(1, "print(open('a.log').read())", "ERROR\nERROR\nERROR")
    again = ran(2, "print(open('a.log').read())", "ERROR\nERROR\nERROR")
    assert without_dead_end([task, *listed]) == [task, *listed]
    assert without_dead_end([task, *listed, *again]) == [task]
