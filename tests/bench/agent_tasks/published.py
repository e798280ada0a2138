"""The tasks that the agent's prompt and rules were worked out on."""

from __future__ import annotations

from agent_tasks.grading import Task

DATA = "name,amount\napple,30\nbread,12\ncheese,58\n"
LOG = "ok start\nERROR disk\nok work\nERROR net\nok end\nERROR disk\n"
PRIMES = [str(n) for n in range(2, 50) if all(n % d for d in range(2, n))]

TASKS = [
    Task(
        "squares",
        "Compute the sum of the squares of the numbers from 1 to 100 and write it to result.txt.",
        lambda w: w.number("result.txt", 338350),
    ),
    Task(
        "demo",
        "Compute the sum of the squares of the numbers from 1 to 100 with Python, write it to result.txt, "
        "then read the file back.",
        lambda w: w.number("result.txt", 338350) and w.read_back("result.txt", "338350"),
    ),
    Task(
        "power", "Compute 2 to the power of 64 and write it to power.txt.", lambda w: w.text("power.txt") == str(2**64)
    ),
    Task("product", "What is 1234 * 5678? Compute it with Python.", lambda w: w.says("7006652")),
    Task(
        "factorial",
        "Compute the factorial of 20 with Python and tell me the number.",
        lambda w: w.says("2432902008176640000"),
    ),
    Task(
        "primes",
        "Write all prime numbers below 50 to primes.txt, one number on each line.",
        lambda w: w.lines("primes.txt") == PRIMES,
    ),
    Task(
        "hello",
        "Make a file hello.txt that contains the text: Hello, world!",
        lambda w: w.text("hello.txt") == "Hello, world!",
    ),
    Task(
        "three_lines",
        "Write a file colors.txt with three lines: red, green, blue. One word on each line.",
        lambda w: w.lines("colors.txt") == ["red", "green", "blue"],
    ),
    Task(
        "read_secret",
        "What is the word in secret.txt?",
        lambda w: w.says("marmalade"),
        {"secret.txt": "marmalade\n"},
    ),
    Task(
        "count_files",
        "How many files are in the folder /workspace?",
        lambda w: w.counts(3),
        {"a.txt": "1", "b.txt": "2", "c.txt": "3"},
    ),
    Task("count_lines", "How many lines does log.txt have?", lambda w: w.counts(6), {"log.txt": LOG}),
    Task(
        "count_errors",
        "How many lines of log.txt begin with ERROR? Count them with Python.",
        lambda w: w.counts(3),
        {"log.txt": LOG},
    ),
    Task(
        "column_sum",
        "The file data.csv has the columns name and amount. "
        "Compute the sum of the amount column and write it to sum.txt.",
        lambda w: w.number("sum.txt", 100),
        {"data.csv": DATA},
    ),
    Task(
        "upper",
        "Read name.txt, convert its text to upper case and write it to upper.txt.",
        lambda w: w.text("upper.txt") == "ADA LOVELACE",
        {"name.txt": "Ada Lovelace\n"},
    ),
    Task(
        "reverse",
        "Reverse the word 'stressed' with Python and tell me the result.",
        lambda w: w.says("desserts"),
    ),
    Task(
        "csv",
        "Create cities.csv with the header city,population and the two rows Paris,2100000 and Rome,2800000.",
        lambda w: w.rows("cities.csv") == [["city", "population"], ["Paris", "2100000"], ["Rome", "2800000"]],
    ),
    Task(
        "json",
        "Write a file user.json with a JSON object that has the keys "
        '"name" with the value "Ada" and "age" with the value 36.',
        lambda w: w.json("user.json") == {"name": "Ada", "age": 36},
    ),
    Task(
        "sort",
        "Sort the lines of names.txt alphabetically and write them to sorted.txt.",
        lambda w: w.lines("sorted.txt") == ["Ada", "Ben", "Cleo", "Dan"],
        {"names.txt": "Cleo\nAda\nDan\nBen\n"},
    ),
    Task(
        "fibonacci",
        "Write the first 10 Fibonacci numbers, starting with 0 and 1, to fib.txt, one number on each line.",
        lambda w: w.lines("fib.txt") == ["0", "1", "1", "2", "3", "5", "8", "13", "21", "34"],
    ),
    Task(
        "words",
        "Count the words in text.txt with Python and write the count to words.txt.",
        lambda w: w.number("words.txt", 9),
        {"text.txt": "the quick brown fox jumps over the lazy dog\n"},
    ),
    Task(
        "average",
        "Compute the average of 12, 15, 18 and 21 with Python and write it to average.txt.",
        lambda w: w.number("average.txt", 16.5),
    ),
    Task(
        "replace",
        "In note.txt replace the word cat by the word dog. Keep the file name.",
        lambda w: w.text("note.txt") == "My dog sleeps. A dog eats.",
        {"note.txt": "My cat sleeps. A cat eats.\n"},
        ("note.txt",),
    ),
    Task(
        "bash",
        "Use bash to make a folder named reports with an empty file today.txt in it.",
        lambda w: w.text("reports/today.txt") == "",
    ),
]
