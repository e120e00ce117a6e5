"""The lines of the admin protocol, byte by byte."""

from __future__ import annotations

import pytest

from postgear.wire import admin


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (admin.END, b".\n"),
        (admin.OK, b"OK\r\n"),
        (admin.UNKNOWN_JOB, b"ERR UNKNOWN_JOB\r\n"),
        (admin.UNKNOWN_SHOW, b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
        (admin.UNKNOWN_CANCEL, b"ERR UNKNOWN_ERROR\r\n"),
        (admin.FUNCTION_NOT_FOUND, b"ERR function not found\r\n"),
        (admin.FUNCTION_IN_USE, b"ERR there are still connected workers or executing clients\r\n"),
    ],
)
def test_the_short_replies_are_gearmand_s(reply: bytes, line: bytes) -> None:
    assert reply == line


@pytest.mark.parametrize("word", [b"hello", b"", b"\0\xff"])
def test_an_unknown_command_is_named_right_after_the_text(word: bytes) -> None:
    assert admin.unknown_command(word) == b"ERR UNKNOWN_COMMAND Unknown+server+command" + word + b"\r\n"


def test_an_incomplete_command_is_named_as_another_word_of_the_text() -> None:
    line = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+drop\r\n"
    assert admin.incomplete(b"drop") == line


def test_too_many_words_are_told_how_many_there_may_be() -> None:
    assert admin.too_many_words() == b"ERR INVALID_ARGUMENTS A+command+has+at+most+5+words\r\n"


def test_an_error_of_the_database_is_one_word_in_ascii() -> None:
    assert admin.store_error("Relation »job« is away") == b"ERR QUEUE_ERROR Relation+?job?+is+away\r\n"
    assert admin.store_error("broke: gone\n\tprobably") == b"ERR QUEUE_ERROR broke:+gone+probably\r\n"


def test_a_table_has_a_line_for_each_row_and_tabs_between_columns() -> None:
    rows = [(b"reverse", 12, 3, 0), (b"\0\xff", -1, 2**63, 1)]
    assert admin.table(rows) == b"reverse\t12\t3\t0\n\0\xff\t-1\t9223372036854775808\t1\n"


def test_a_table_takes_rows_that_can_be_read_but_once() -> None:
    assert admin.table((name, number) for number, name in enumerate([b"a", b"b"])) == b"a\t0\nb\t1\n"


def test_a_table_without_rows_is_empty() -> None:
    assert admin.table([]) == b""


def test_a_worker_line_lists_its_functions_after_the_colon() -> None:
    assert admin.worker_line(33, b"127.0.0.1", b"me", [b"reverse", b"b"]) == b"33 127.0.0.1 me : reverse b\n"


def test_a_worker_line_without_functions_ends_at_its_colon() -> None:
    assert admin.worker_line(33, b"::1", b"-", []) == b"33 ::1 - :\n"
