"""Printing rows for people: a table on a terminal, aligned text in a pipe, JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_rows(columns: Sequence[str], rows: Sequence[Any], *, as_json: bool) -> None:
    """Print *rows* (NamedTuples with the fields *columns*) on standard output.

    JSON is one list of objects. Numbers stand to the right; characters that are not printable are escaped.
    """
    if as_json:
        print(json.dumps([row._asdict() for row in rows], ensure_ascii=False, indent=2))
        return
    numeric = [bool(rows) and all(_is_number(row[index]) for row in rows) for index in range(len(columns))]
    cells = [[cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells, numeric)
    else:
        _print_plain(columns, cells, numeric)


def _print_plain(columns: Sequence[str], cells: list[list[str]], numeric: list[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [list(columns), *cells]:
        words = [
            word.rjust(width) if right else word.ljust(width) for word, width, right in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(words).rstrip())


def _print_rich(columns: Sequence[str], cells: list[list[str]], numeric: list[bool]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, right in zip(columns, numeric, strict=True):
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(word) for word in row))
    Console().print(table)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def cell(value: object) -> str:
    """Return a value as people read it, what is not printable escaped."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        value = " ".join(value)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(value))
