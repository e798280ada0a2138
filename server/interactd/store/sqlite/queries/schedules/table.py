"""A table whose rows are a dataclass: columns are its fields, some of them JSON or booleans."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Generic, TypeVar

from interactd.errors import AmbiguousId, InvalidArgument, NotFound
from interactd.store.port import Page
from interactd.store.sqlite.queries import rows

T = TypeVar("T")
PAGE_MAX = 1000


class Table(Generic[T]):
    """Reads and writes rows of one dataclass.

    Args:
        kind: what an error calls a row.
        repair: what an error says when there is none.
        json_columns, flags: fields kept as JSON text and as 0 or 1.
        extra: fields that are kept elsewhere.
    """

    def __init__(
        self,
        name: str,
        row: type[T],
        kind: str,
        *,
        repair: str,
        json_columns: Collection[str] = (),
        flags: Collection[str] = (),
        extra: Collection[str] = (),
    ) -> None:
        fields = dataclasses.fields(row)  # pyright: ignore[reportArgumentType]
        self.name = name
        self.kind = kind
        self._row = row
        self._repair = repair
        self._json = frozenset(json_columns)
        self._flags = frozenset(flags)
        self.columns = tuple(field.name for field in fields if field.name not in extra)
        self.select = ", ".join(f"{name}.{column}" for column in self.columns)

    def values(self, row: T) -> tuple[Any, ...]:
        """Return the column values, encoded."""
        return tuple(self._encode(column, getattr(row, column)) for column in self.columns)

    def _encode(self, column: str, value: Any) -> Any:
        if column in self._json:
            return None if value is None else rows.dump(value)
        if column in self._flags:
            return int(value)
        return rows.exact(value) if isinstance(value, str) else value

    def read(self, row: Sequence[Any]) -> T:
        """Return the dataclass of a row of `select`."""
        given: dict[str, Any] = {}
        for column, value in zip(self.columns, row, strict=False):
            if column in self._json:
                value = rows.load(value)
            elif column in self._flags:
                value = bool(value)
            given[column] = value
        return self._row(**given)

    def insert(self, db: sqlite3.Connection, row: T, *, unless_there: bool = False) -> bool:
        """Insert; with `unless_there` nothing happens when it clashes. Returns whether it was inserted."""
        marks = ", ".join("?" * len(self.columns))
        verb = "INSERT OR IGNORE" if unless_there else "INSERT"
        done = db.execute(f"{verb} INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})", self.values(row))
        return done.rowcount == 1

    def update(self, db: sqlite3.Connection, row: T) -> None:
        """Replace every column of the row with this id."""
        values = self.values(row)
        sets = ", ".join(f"{column} = ?" for column in self.columns)
        db.execute(f"UPDATE {self.name} SET {sets} WHERE id = ?", (*values, values[self.columns.index("id")]))

    def find_all(self, db: sqlite3.Connection, where: str, values: Sequence[Any] = (), more: str = "") -> list[T]:
        """Return the rows for which `where` holds."""
        found = db.execute(f"SELECT {self.select} FROM {self.name} WHERE {where} {more}", tuple(values))
        return [self.read(row) for row in found]

    def get(self, db: sqlite3.Connection, id: str) -> T:
        """Return one row. Raises: NotFound."""
        found = self.find_all(db, "id = ?", (rows.exact(id),))
        if not found:
            raise self.missing(id)
        return found[0]

    def missing(self, id: str) -> NotFound:
        """The error for an id that has no row."""
        return NotFound(f"there is no {self.kind} {id}", repair=self._repair, kind=self.kind, id=id)

    def find(self, db: sqlite3.Connection, prefix: str, owner: str) -> str:
        """Return the owner's one id that starts with the prefix. Raises: NotFound, AmbiguousId."""
        first = rows.exact(prefix)
        found = db.execute(
            f"SELECT id FROM {self.name} WHERE id >= ? AND id < ? AND owner = ? ORDER BY id LIMIT 6",
            (first, first + "\U0010ffff", rows.exact(owner)),
        ).fetchall()
        ids: list[str] = [row[0] for row in found]
        if not ids:
            raise self.missing(prefix)
        if len(ids) > 1 and ids[0] != first:
            raise AmbiguousId(
                f"several {self.kind} ids start with {prefix}",
                repair=f"Give more of the id: {', '.join(ids[:5])}.",
                kind=self.kind,
                candidates=ids[:5],
            )
        return ids[0]

    def page(
        self,
        db: sqlite3.Connection,
        where: Sequence[str],
        values: Sequence[Any],
        limit: int,
        cursor: str | None,
        *,
        newest_first: bool,
    ) -> Page:
        """Return a page by creation (ids sort by it)."""
        limit = max(1, min(limit, PAGE_MAX))
        clauses, given = list(where), list(values)
        if cursor is not None:
            clauses.append(f"{self.name}.id {'<' if newest_first else '>'} ?")
            given.append(rows.exact(_cursor(cursor, self.kind)))
        order = f"ORDER BY {self.name}.id {'DESC' if newest_first else 'ASC'} LIMIT {limit + 1}"
        found = self.find_all(db, " AND ".join(clauses) or "1", given, order)
        items = found[:limit]
        last: Any = items[-1] if len(found) > limit else None
        return Page(items, None if last is None else json.dumps([last.id]))


def _cursor(text: str, kind: str) -> str:
    try:
        (id,) = json.loads(text)
        return str(id)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(
            f"cursor: not one that a list of {kind}s gave",
            repair="Pass the cursor of the last page as it was, or none for the first page.",
            field="cursor",
        ) from error


def any_of(column: str, choices: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return `column IN (...)` and its values; nothing for `None`."""
    if choices is None:
        return [], []
    return [f"{column} IN ({', '.join('?' * len(choices))})"], list(choices)
