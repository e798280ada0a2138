"""Tasks of the same kinds in other words: measured apart, to see what carries over."""

from __future__ import annotations

from agent_tasks.grading import Task

STOCK = "item,price,quantity\npen,2,40\nbook,15,6\nlamp,49,3\nchair,80,4\n"
MARKS = "student,mark\nMia,71\nNoah,88\nLena,64\nOmar,93\n"
SERVER = "INFO boot\nWARN slow disk\nINFO ready\nWARN low memory\nINFO request\nINFO get\nWARN slow disk\nINFO end\n"
POEM = "rain falls on the roof\nthe cat sleeps by the fire\nwinter is long\n"

TASKS = [
    Task(
        "cubes",
        "Add up the cubes of the whole numbers from 1 to 50 and save the total in total.txt.",
        lambda w: w.number("total.txt", 1625625),
    ),
    Task(
        "write_and_check",
        "Calculate 37 * 41 in Python, store the result in answer.txt and then print what the file contains.",
        lambda w: w.number("answer.txt", 1517) and w.read_back("answer.txt", "1517"),
    ),
    Task(
        "big_power",
        "Use Python to calculate 7 to the power of 15. Tell me the number.",
        lambda w: w.says("4747561509943"),
    ),
    Task("seconds", "How many seconds are there in 3 weeks? Use Python.", lambda w: w.says("1814400")),
    Task("digit_sum", "What is the sum of the digits of 987654321? Compute it.", lambda w: w.says("45")),
    Task(
        "evens",
        "Create the file evens.txt with the even numbers from 2 to 20, one per line.",
        lambda w: w.lines("evens.txt") == [str(n) for n in range(2, 21, 2)],
    ),
    Task(
        "powers",
        "Write the powers of two from 2**0 to 2**8 into powers.txt, each on a line of its own.",
        lambda w: w.lines("powers.txt") == [str(2**n) for n in range(9)],
    ),
    Task(
        "motto",
        "Please save the sentence 'Slow is smooth.' in a file called motto.txt.",
        lambda w: w.text("motto.txt") == "Slow is smooth.",
    ),
    Task(
        "four_words",
        "I need a file winds.txt. Its lines are: north, east, south, west (four lines, one word each).",
        lambda w: w.lines("winds.txt") == ["north", "east", "south", "west"],
    ),
    Task(
        "read_note",
        "Read the file reminder.txt and tell me what I must buy.",
        lambda w: w.says("lemons"),
        {"reminder.txt": "Buy lemons on Friday.\n"},
    ),
    Task(
        "read_setting",
        "Which port is set in config.json?",
        lambda w: w.says("8431"),
        {"config.json": '{"host": "localhost", "port": 8431, "debug": false}\n'},
    ),
    Task(
        "count_txt",
        "Count the files in the current folder whose names end with .md and tell me how many there are.",
        lambda w: w.counts(2),
        {"intro.md": "# Hi\n", "usage.md": "# Use\n", "data.csv": "a,b\n"},
    ),
    Task(
        "count_warnings",
        "How many lines in server.log contain the word WARN?",
        lambda w: w.counts(3),
        {"server.log": SERVER},
    ),
    Task(
        "poem_words",
        "Find out how many words poem.txt has and write only that number to count.txt.",
        lambda w: w.number("count.txt", 14),
        {"poem.txt": POEM},
    ),
    Task(
        "price_total",
        "stock.csv is a table with the columns item, price and quantity. Add up the quantity column and put the sum in "
        "quantity.txt.",
        lambda w: w.number("quantity.txt", 53),
        {"stock.csv": STOCK},
    ),
    Task(
        "best_mark",
        "Which student in marks.csv has the highest mark?",
        lambda w: w.says("Omar") and not w.says("Noah", "Mia", "Lena"),
        {"marks.csv": MARKS},
    ),
    Task(
        "mean_mark",
        "Compute the average of the mark column of marks.csv and write it to mean.txt.",
        lambda w: w.number("mean.txt", 79),
        {"marks.csv": MARKS},
    ),
    Task(
        "lower",
        "Make a copy of title.txt in lower case letters and call it lower.txt.",
        lambda w: w.text("lower.txt") == "war and peace",
        {"title.txt": "WAR AND PEACE\n"},
    ),
    Task(
        "sort_numbers",
        "numbers.txt has one number per line. Sort them from small to large and save them in ordered.txt.",
        lambda w: w.lines("ordered.txt") == ["3", "8", "15", "42", "107"],
        {"numbers.txt": "42\n8\n107\n3\n15\n"},
    ),
    Task(
        "table",
        "Write a CSV file people.csv: the header is name,age and the rows are Lisa,41 and Tom,29.",
        lambda w: w.rows("people.csv") == [["name", "age"], ["Lisa", "41"], ["Tom", "29"]],
    ),
    Task(
        "settings",
        'Create settings.json. It must be a JSON object with "theme" set to "dark" and "volume" set to 7.',
        lambda w: w.json("settings.json") == {"theme": "dark", "volume": 7},
    ),
    Task(
        "palindrome",
        "Write the word 'drawer' backwards with a Python program and tell me what it says.",
        lambda w: w.says("reward"),
    ),
    Task(
        "append",
        "Add the line 'eggs' at the end of shopping.txt.",
        lambda w: w.lines("shopping.txt") == ["milk", "bread", "eggs"],
        {"shopping.txt": "milk\nbread\n"},
        ("shopping.txt",),
    ),
    Task(
        "rename_word",
        "Change every 'blue' in paint.txt to 'green'.",
        lambda w: w.text("paint.txt") == "green wall, green door",
        {"paint.txt": "blue wall, blue door\n"},
        ("paint.txt",),
    ),
    Task(
        "folder",
        "Create a directory called archive and put a file info.txt with the word done inside it.",
        lambda w: w.text("archive/info.txt") == "done",
    ),
    Task(
        "script",
        "Write a Python script greet.py that prints Good morning, and run it.",
        lambda w: "print" in w.files.get("greet.py", "") and w.printed("Good morning"),
    ),
]
