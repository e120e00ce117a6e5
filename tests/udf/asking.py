"""What the tests ask of a session."""

from __future__ import annotations

from typing import Any

import mysql.connector


class Session:
    """One session, with the warnings of its last statement."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.warnings: list[tuple[str, int, str]] = []

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement, read its rows and then its warnings."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters)
            found = [tuple(map(_bytes_as_they_are, row)) for row in cursor.fetchall()] if cursor.with_rows else []
            if not query.startswith("show"):
                cursor.execute("show warnings")
                self.warnings = cursor.fetchall()
        return found

    def value(self, query: str, *parameters: object) -> Any:
        """The one value of a query."""
        ((found,),) = self.rows(query, *parameters)
        return found

    def warning(self) -> str:
        """The text of the one warning of the last statement."""
        ((level, code, text),) = self.warnings
        assert (level, code) == ("Warning", 1105)
        return str(text)

    def error(self, query: str, *parameters: object) -> str:
        """The text of the error that a statement ends with."""
        try:
            found = self.rows(query, *parameters)
        except mysql.connector.Error as error:
            return f"{error.errno}: {error.msg}"
        raise AssertionError(f"no error, but {found}")


def _bytes_as_they_are(value: object) -> object:
    return bytes(value) if isinstance(value, bytearray) else value
