"""Print what a CSV or TSV file holds: python3 describe.py FILE [FILE ...]"""

from __future__ import annotations

import csv
import statistics
import sys

ROWS = 200_000


def number(text: str) -> float | None:
    """Return the number a cell holds, None for other text."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def describe(path: str) -> None:
    """Print the columns of one file."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        sample = file.read(65536)
        file.seek(0)
        try:
            dialect: type[csv.Dialect] = csv.Sniffer().sniff(sample, delimiters=",;\t|")
        except csv.Error:
            dialect = csv.excel
        reader = csv.reader(file, dialect)
        names = next(reader, None) or list[str]()
        columns: list[list[str]] = [[] for _ in names]
        rows = odd = 0
        for row in reader:
            if not row:
                continue
            rows += 1
            odd += len(row) != len(names)
            for values, cell in zip(columns, row, strict=False):
                values.append(cell.strip())
            if rows >= ROWS:
                break
    more = " (the first; there may be more)" if rows >= ROWS else ""
    print(f"{path}: {rows} rows{more}, {len(names)} columns, separator {dialect.delimiter!r}")
    if odd:
        print(f"  {odd} rows have another number of cells than the header")
    for name, values in zip(names, columns, strict=True):
        full = [value for value in values if value]
        numbers = [found for value in full if (found := number(value)) is not None]
        line = f"  {name!r}: "
        if full and len(numbers) == len(full):
            line += f"number, {min(numbers):g} to {max(numbers):g}, mean {statistics.fmean(numbers):g}"
        else:
            different = list(dict.fromkeys(full))
            line += f"text, {len(different)} different, such as {', '.join(map(repr, different[:4]))}"
            if numbers:
                line += f"; {len(numbers)} of them are numbers"
        print(line + (f"; {len(values) - len(full)} empty" if len(full) < len(values) else ""))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for each in sys.argv[1:]:
        describe(each)
