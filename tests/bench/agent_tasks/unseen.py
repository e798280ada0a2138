"""Tasks that nothing was tuned on: written before the work on the other sets, and run when that was over."""

from __future__ import annotations

from agent_tasks.grading import Task

SALES = "region,units\nnorth,120\nsouth,75\neast,210\nwest,95\n"
ACCESS = "GET /a 200\nGET /b 404\nPOST /c 200\nGET /d 404\nGET /e 500\nGET /f 200\nGET /g 404\nGET /h 404\n"

TASKS = [
    Task(
        "odd_sum",
        "What is the sum of all odd numbers from 1 to 999? Use code to find out and put the number in odd.txt.",
        lambda w: w.number("odd.txt", 250000),
    ),
    Task(
        "round_trip",
        "With Python, work out 12 factorial, save it as fact.txt, and read fact.txt again to check it.",
        lambda w: w.number("fact.txt", 479001600) and w.read_back("fact.txt", "479001600"),
    ),
    Task(
        "remainder", "What is the remainder when 123456789 is divided by 97? Please use Python.", lambda w: w.says("39")
    ),
    Task("root", "Calculate the square root of 1522756 with Python.", lambda w: w.says("1234", "1234.0")),
    Task("hours", "How many minutes are in 45 days? Compute the answer with code.", lambda w: w.says("64800")),
    Task("vowels", "Count the vowels in the word 'encyclopedia' using Python.", lambda w: w.counts(5)),
    Task(
        "sevens",
        "Save the multiples of 7 from 7 to 70 in sevens.txt, one number per line.",
        lambda w: w.lines("sevens.txt") == [str(n) for n in range(7, 71, 7)],
    ),
    Task(
        "squares_list",
        "Produce a file squares.txt that lists the squares of 1 to 12, each on its own line.",
        lambda w: w.lines("squares.txt") == [str(n * n) for n in range(1, 13)],
    ),
    Task(
        "quote",
        "Write the text Knowledge is power to the file quote.txt.",
        lambda w: w.text("quote.txt") in ("Knowledge is power", "Knowledge is power."),
    ),
    Task(
        "seasons",
        "Create seasons.txt containing the words spring, summer, autumn and winter, each on a separate line.",
        lambda w: w.lines("seasons.txt") == ["spring", "summer", "autumn", "winter"],
    ),
    Task(
        "password",
        "Open hint.txt and tell me which city it mentions.",
        lambda w: w.says("Lisbon"),
        {"hint.txt": "The meeting takes place in Lisbon.\n"},
    ),
    Task(
        "version",
        "What version does package.json give?",
        lambda w: w.says("4.12.7"),
        {"package.json": '{"name": "tiny-app", "version": "4.12.7"}\n'},
    ),
    Task(
        "folder_count",
        "Look into the workspace: how many files are there?",
        lambda w: w.counts(4),
        {"x.txt": "x", "y.txt": "y", "z.csv": "z", "readme.md": "r"},
    ),
    Task(
        "not_found",
        "Count how many requests in access.log ended with status 404 and write the number to missing.txt.",
        lambda w: w.number("missing.txt", 4),
        {"access.log": ACCESS},
    ),
    Task(
        "line_count",
        "Tell me the number of lines in story.txt.",
        lambda w: w.counts(5),
        {"story.txt": "one day\na fox\nmet a crow\nand they\nspoke\n"},
    ),
    Task(
        "units",
        "Sum the units in sales.csv (columns region and units) and store the total in units.txt.",
        lambda w: w.number("units.txt", 500),
        {"sales.csv": SALES},
    ),
    Task(
        "largest",
        "Look at sales.csv and tell me which region sold the most units.",
        lambda w: w.says("east") and not w.says("north", "south", "west"),
        {"sales.csv": SALES},
    ),
    Task(
        "title_case",
        "Take the text in shout.txt, make it upper case and save it to loud.txt.",
        lambda w: w.text("loud.txt") == "PLEASE BE QUIET",
        {"shout.txt": "please be quiet\n"},
    ),
    Task(
        "descending",
        "Sort the numbers in scores.txt from largest to smallest and write them to ranking.txt, one per line.",
        lambda w: w.lines("ranking.txt") == ["99", "54", "31", "12", "7"],
        {"scores.txt": "31\n99\n7\n54\n12\n"},
    ),
    Task(
        "books",
        "Make books.csv with the header title,year and two rows: Emma,1815 and Dracula,1897.",
        lambda w: w.rows("books.csv") == [["title", "year"], ["Emma", "1815"], ["Dracula", "1897"]],
    ),
    Task(
        "point",
        'Save a JSON object in point.json with the key "x" equal to 3 and the key "y" equal to 9.',
        lambda w: w.json("point.json") == {"x": 3, "y": 9},
    ),
    Task(
        "minimum",
        "Find the smallest of the numbers 48, 17, 93, 22 and 65 with Python and write it to smallest.txt.",
        lambda w: w.number("smallest.txt", 17),
    ),
    Task(
        "copy",
        "Copy the content of original.txt into a new file duplicate.txt.",
        lambda w: w.text("duplicate.txt") == "keep this line",
        {"original.txt": "keep this line\n"},
    ),
    Task(
        "swap",
        "Replace Monday with Tuesday in plan.txt.",
        lambda w: w.text("plan.txt") == "Tuesday: meeting. Call Ann on Tuesday.",
        {"plan.txt": "Monday: meeting. Call Ann on Monday.\n"},
        ("plan.txt",),
    ),
    Task(
        "remove",
        "Delete the file draft.txt.",
        lambda w: "draft.txt" not in w.names,
        {"draft.txt": "old\n"},
        ("draft.txt",),
    ),
    Task(
        "shell",
        "Use bash to create a folder called backup and copy notes.txt into it.",
        lambda w: w.text("backup/notes.txt") == "call mum",
        {"notes.txt": "call mum\n"},
    ),
]
