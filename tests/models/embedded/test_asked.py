"""What the words of a task ask for: which files are there, which are to be made or changed, what is to be found out."""

from __future__ import annotations

import pytest

from interactd.models.embedded.calls.asked import asked


@pytest.mark.parametrize(
    ("task", "read", "made", "changed", "deleted"),
    [
        ("Convert a.csv to JSON and store it as b.json.", ["a.csv"], ["b.json"], [], []),
        ("Take the words in x.txt and put them into y.txt.", ["x.txt"], ["y.txt"], [], []),
        ("Save the result in out.txt.", [], ["out.txt"], [], []),
        ("I need a file called list.md with two lines.", [], ["list.md"], [], []),
        ("Merge a.csv and b.csv into all.csv", ["a.csv", "b.csv"], ["all.csv"], [], []),
        ("What does `/workspace/notes/a.txt` say?", ["notes/a.txt"], [], [], []),
        ("Append the line 'bye' to the file log.txt", [], [], ["log.txt"], []),
        ("Fix the spelling in letter.txt", [], [], ["letter.txt"], []),
        ("Delete the file old.log and tell me what is left.", [], [], [], ["old.log"]),
        ("Copy a.txt to a file b.txt.", ["a.txt"], ["b.txt"], [], []),
        ("Fetch https://example.org/a.html, e.g. now, and write /workspace/out/b.txt", [], ["out/b.txt"], [], []),
        ("Hello, who are you?", [], [], [], []),
    ],
)
def test_files_and_what_becomes_of_them(
    task: str, read: list[str], made: list[str], changed: list[str], deleted: list[str]
) -> None:
    found = asked(task)
    assert (found.read, found.made, found.changed, found.deleted) == (read, made, changed, deleted)


@pytest.mark.parametrize(
    ("task", "computes"),
    [
        ("How often does the word cat occur in a.txt?", True),
        ("List the multiples of 3 from 3 to 30 in m.txt", True),
        ("Which planet in planets.csv is the largest?", True),
        ("Which colour is named in a.json?", False),
        ("Write the text Good night to a.txt", False),
        ("Thanks, that was all.", False),
    ],
)
def test_what_only_a_program_finds_out(task: str, computes: bool) -> None:
    assert asked(task).computes is computes


def test_a_folder_that_is_to_be_made_holds_the_file_that_is_to_be_made() -> None:
    found = asked("Create a directory called out and put a file a.txt with the word hi in it.")
    assert (found.folder, found.made) == ("out", ["a.txt"])
    assert asked("How many files are in the folder /workspace?").folder is None
    assert asked("Make a folder named 'a/b' with an empty file c.txt.").folder == "a/b"


def test_lines_numbers_and_programs() -> None:
    found = asked("Write the first 7 square numbers to s.txt, one on each line.")
    assert (found.lines, found.count) == (True, 7)
    assert not asked("Add the line 'x' to a.txt").lines
    assert asked("How many words are in a.txt?").number
    assert not asked("Write each word and how many times it occurs to a.txt").number
    assert asked("Write a script count.sh and run it").runs == ["count.sh"]
    assert not asked("Write a script count.sh").runs
    assert asked("Make an empty file a.txt").empty
    assert asked("Compute 2 + 2, write it to a.txt and show me what is in it").looks


def test_nonsense_of_any_length_is_read_quickly_and_asks_for_nothing() -> None:
    for text in ("(" * 50_000, "'" * 50_000, "a" * 100_000, "the a " * 20_000, "a/" * 50_000, "one line " * 10_000):
        assert not asked(text).acts
    assert asked("a.txt " * 5_000).files == ["a.txt"]
