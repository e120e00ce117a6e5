"""The commands for people: what they send, print, and exit with, against a server of literal bytes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import psycopg
import pytest

from postgear import __version__, cli, schema
from tests.server.bytes import request

Script = Sequence[tuple[bytes, bytes]]
"""What the server expects and what it answers, in order; then it closes."""


def response(kind: int, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return b"\0RES" + struct.pack(">II", kind, len(body)) + body


class ScriptedServer:
    """A server for one connection that plays a script and keeps what differed from it."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            connection.settimeout(10)
            for expected, answer in self._script:
                data = b""
                while len(data) < len(expected) and (chunk := connection.recv(65536)):
                    data += chunk
                self.received.append(data)
                connection.sendall(answer)

    def check(self) -> None:
        self._thread.join(10)
        assert self.received == [expected for expected, _ in self._script]


@pytest.fixture
def serve() -> Iterator[Callable[[Script], str]]:
    """Start a scripted server, return its address; after the test the script must have been played."""
    servers: list[ScriptedServer] = []

    def start(script: Script) -> str:
        servers.append(ScriptedServer(script))
        return servers[-1].address

    yield start
    for server in servers:
        server.check()


STATUS: Script = [
    (b"status\r\n", b"resize\t7\t2\t3\nmail\t0\t0\t1\n.\n"),
    (b"prioritystatus\r\n", b"resize\t1\t4\t0\t3\nmail\t0\t0\t0\t1\n.\n"),
]


def test_status_merges_both_admin_commands(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--server", serve(STATUS)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "function  high  normal  low  running  workers  total",
        "mail         0       0    0        0        1      0",
        "resize       1       4    0        2        3      7",
    ]


def test_status_as_json(
    serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGEAR_SERVER", serve(STATUS))
    assert cli.main(["status", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[1] == {"function": "resize", "high": 1, "normal": 4, "low": 0, "running": 2, "workers": 3, "total": 7}


def test_workers(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    answer = b"38 127.0.0.1 - :\n39 ::1 my worker : mail resize\n40 10.0.0.1 \xff\x1b[1m : x\n.\n"
    assert cli.main(["workers", "--server", serve([(b"workers\r\n", answer)])]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fd  address    client_id    functions",
        "38  127.0.0.1  -",
        "39  ::1        my worker    mail resize",
        r"40  10.0.0.1   \xff\x1b[1m  x",
    ]


def test_jobs(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    answer = b"H:q:1\t0\t0\t1\nH:q:20\t3\t1\t0\n.\n"
    assert cli.main(["jobs", "--server", serve([(b"show jobs\r\n", answer)])]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "handle  retries  ignored  queued",
        "H:q:1         0  no       yes",
        "H:q:20        3  yes      no",
    ]


def test_table_on_a_terminal(
    serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["jobs", "--server", serve([(b"show jobs\r\n", b"H:[red]:1\t0\t0\t1\n.\n")])]) == 0
    assert "H:[red]:1" in capsys.readouterr().out


def test_cancel(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cancel", "H:q:1", "--server", serve([(b"cancel job H:q:1\r\n", b"OK\r\n")])]) == 0
    assert capsys.readouterr().out == "cancelled H:q:1\n"
    address = serve([(b"cancel job H:q:2\r\n", b"ERR UNKNOWN_JOB\r\n")])
    assert cli.main(["cancel", "H:q:2", "--server", address]) == 7
    assert capsys.readouterr().err == f"postgear: server {address}: there is no job H:q:2: it has ended, or never was\n"


@pytest.mark.parametrize(
    ("priority", "name"), [("high", "SUBMIT_JOB_HIGH_BG"), ("normal", "SUBMIT_JOB_BG"), ("low", "SUBMIT_JOB_LOW_BG")]
)
def test_background_submit_prints_the_handle(
    priority: str, name: str, serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]
) -> None:
    address = serve([(request(name, b"f", b"u", b"data"), response(8, b"H:q:1"))])
    assert cli.main(["submit", "-b", "--priority", priority, "--unique", "u", "f", "data", "--server", address]) == 0
    assert capsys.readouterr().out == "H:q:1\n"


def test_scheduled_submit(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    address = serve([(request("SUBMIT_JOB_EPOCH", b"f", b"", b"4102444800", b"data"), response(8, b"H:q:1"))])
    assert cli.main(["submit", "--at", "4102444800", "f", "data", "--server", address]) == 0
    assert capsys.readouterr().out == "H:q:1\n"
    assert cli.main(["submit", "--at", "4102444800", "--priority", "high", "f", "data"]) == 2
    err = capsys.readouterr().err
    assert "a scheduled job has normal priority" in err
    assert "postgear submit --help" in err


def test_a_time_in_the_past_is_taken_and_told(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    address = serve([(request("SUBMIT_JOB_EPOCH", b"f", b"", b"1", b"data"), response(8, b"H:q:1"))])
    assert cli.main(["submit", "--at", "1", "f", "data", "--server", address]) == 0
    assert capsys.readouterr() == ("H:q:1\n", "postgear: --at 1 is in the past, the job may start at once\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", "--delay", "-5", "f", "x"], "argument --delay: -5 given, must be seconds from 0 on"),
        (["submit", "--delay", "soon", "f", "x"], "argument --delay: soon given, must be seconds from 0 on"),
        (["submit", "--delay", "1e20", "f", "x"], "beyond the year 9999"),
        (["submit", "--timeout", "0", "f", "x"], "argument --timeout: 0 given, must be seconds, more than 0"),
        (["submit", "", "x"], "the function's name is empty"),
        (["cancel", ""], "postgear cancel --help"),
        (["submit", "f", "x", "--fast"], "postgear submit: error: unknown: --fast"),
        (["trigger", "list", "--fast"], "postgear trigger list: error: unknown: --fast"),
        (["jobs", "--dsn", "", "--limit", "0"], "argument --limit: 0 given, must be a number from 1 on"),
    ],
)
def test_wrong_words_are_refused_with_the_usage_that_helps(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        sys.exit(cli.main(words))
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_job_that_nobody_runs_in_time_is_told_as_such(
    serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=cli.main, args=(["submit", "--timeout", "0.1", "f", "x", "--server", address],))
        thread.start()
        with listener.accept()[0] as connection:
            connection.sendall(OPTION[1] + response(8, b"H:q:1"))
            thread.join(10)
    assert capsys.readouterr().err == f"postgear: server {address}: no answer within 0.1 s; no worker for f?\n"


OPTION = (request("OPTION_REQ", b"exceptions"), response(27, b"exceptions"))


def test_foreground_submit_separates_data_from_progress(
    serve: Callable[[Script], str], capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in\0put")))
    handle = b"H:q:1"
    answer = response(8, handle) + response(12, handle, b"1", b"2") + response(28, handle, b"a\0b")
    answer += response(29, handle, b"careful") + response(13, handle, b"c")
    address = serve([OPTION, (request("SUBMIT_JOB", b"f", b"", b"in\0put"), answer)])
    assert cli.main(["submit", "f", "--server", address]) == 0
    out, err = capfdbinary.readouterr()
    assert out == b"a\0bc"
    assert err == b"postgear: 1/2 done\npostgear: warning: careful\n"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (response(14, b"H:q:1"), "postgear: the job failed\n"),
        (response(25, b"H:q:1", b"no such file"), "postgear: the job failed: no such file\n"),
    ],
)
def test_failed_job_exits_with_1(
    answer: bytes, text: str, serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]
) -> None:
    address = serve([OPTION, (request("SUBMIT_JOB", b"f", b"", b"x"), response(8, b"H:q:1") + answer)])
    assert cli.main(["submit", "f", "x", "--server", address]) == 1
    assert capsys.readouterr() == ("", text)


def test_refused_submit_tells_the_servers_words(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    address = serve([(request("SUBMIT_JOB_BG", b"f", b"", b"x"), response(19, b"QUEUE_ERROR", b"Job queue is full"))])
    assert cli.main(["submit", "-b", "f", "x", "--server", address]) == 6
    assert capsys.readouterr().err == "postgear: the job was refused: QUEUE_ERROR Job queue is full\n"


def test_server_that_goes_away_is_told(serve: Callable[[Script], str], capsys: pytest.CaptureFixture[str]) -> None:
    address = serve([OPTION, (request("SUBMIT_JOB", b"f", b"", b"x"), response(8, b"H:q:1"))])
    assert cli.main(["submit", "f", "x", "--server", address]) == 6
    assert capsys.readouterr().err == f"postgear: server {address}: closed the connection\n"


def test_unreachable_server_is_told_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert cli.main(["status", "--server", f"127.0.0.1:{port}"]) == 6
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"postgear: server 127.0.0.1:{port}: cannot be reached: Connection refused"
    assert "postgear serve" in second


@pytest.mark.parametrize(
    "words", [["status", "--server", "a:b:c"], ["serve", "--listen", "nowhere"], ["serve", "--config", "/no/such/file"]]
)
def test_wrong_settings_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("postgear: ")
    assert "Traceback" not in err


def test_init_without_a_database_says_how_to_name_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for variable in ("POSTGEAR_DSN", "PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(str(tmp_path))
    assert cli.main(["init"]) == 2
    assert "--dsn" in capsys.readouterr().err


def test_init_refuses_a_queue_name_with_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--dsn", "host=/nonexistent", "--queue", "two words"]) == 2
    assert "--queue: 'two words' given, must be 1 to 40 printable ASCII characters" in capsys.readouterr().err


def test_init_says_what_it_did(empty_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for words in (["--queue", "a"], [], ["--queue", "b"]):
        assert cli.main(["init", "--dsn", empty_dsn, *words]) == 0
        said.append(capsys.readouterr().out.splitlines())
    assert said[0][0] == f"schema postgear: created, version {schema.VERSION}, queue a"
    assert said[1][0] == f"schema postgear: nothing to do, version {schema.VERSION}, queue a"
    assert "renamed" not in "".join(said[0] + said[1])
    assert said[2][0] == f"schema postgear: nothing to do, version {schema.VERSION}, queue b"
    assert said[2][-1].startswith("queue renamed from a to b: ")


def test_init_that_the_database_refuses_does_not_advise_init(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("update postgear.alembic_version set version_num = '9999'")
    assert cli.main(["init", "--dsn", dsn]) == 3
    assert "postgear init" not in capsys.readouterr().err


def test_init_with_sql_prints_and_changes_nothing(empty_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "--sql", "--dsn", empty_dsn]) == 0
    text = capsys.readouterr().out
    assert "create table postgear.job" in text
    assert "create or replace function postgear.claim_jobs" in text
    assert schema.current(empty_dsn) is None


def test_every_setting_is_a_flag_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["serve", "--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert "--max-packet-bytes" in text
    assert "--no-round-robin" in text


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"postgear {__version__}\n"


def test_jobs_of_the_database(dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select gman_do_high_background('resize', 'data', 'u')")
        connection.execute("select postgear.submit_job('mail', 'x', run_at => 4102444800)")
    monkeypatch.setenv("POSTGEAR_DSN", dsn)
    assert cli.main(["jobs", "--json", "--dsn"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["function"], first["priority"], first["state"], first["unique"]) == ("resize", "high", "queued", "u")
    assert (second["function"], second["state"], second["run_at"][:5]) == ("mail", "scheduled", "2100-")
    assert cli.main(["jobs", "--limit", "1", "--dsn", dsn]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == "postgear: these are the oldest 1, there are more: --limit N\n"


def test_jobs_of_a_database_without_the_schema(empty_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["jobs", "--dsn", empty_dsn]) == 3
    assert "postgear init" in capsys.readouterr().err


def test_asking_a_server_imports_nothing_heavy() -> None:
    code = (
        "import sys; from postgear import cli, submit, tables; cli._parser(); "
        "print([m for m in sys.modules if m in ('asyncio', 'uvloop', 'psycopg', 'alembic', 'rich', 'sqlalchemy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout == "[]\n"
