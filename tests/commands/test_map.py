"""`postgear map` and `postgear submit --lines` in pipelines."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.test_worker_restart import runs
from tests.commands.worker_process import PROGRAM, WAIT_SECONDS, WorkerProcess
from tests.server.bytes import Peer
from tests.server.load import query, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., WorkerProcess]
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Open = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def command(server: ServerProcess, folder: Path) -> Run:
    """Run a command of postgear for the test's server to its end."""

    def run(*words: str, text: bytes = b"", address: str = server.address) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "POSTGEAR_SERVER": address}
        return subprocess.run(
            [PROGRAM, *words], input=text, capture_output=True, cwd=folder, env=environment, timeout=50, check=False
        )

    return run


@pytest.fixture
def pipeline(server: ServerProcess, folder: Path) -> Iterator[Open]:
    """Start a command of postgear with pipes."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        environment = {**os.environ, "POSTGEAR_SERVER": server.address}
        started.append(subprocess.Popen([PROGRAM, *words], stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def lines(count: int) -> list[bytes]:
    return [b"line %d" % number for number in range(count)]


@pytest.mark.parametrize("words", [(), ("-n", "7"), ("--unordered",)])
def test_each_line_becomes_a_result(words: tuple[str, ...], start_worker: Start, command: Run) -> None:
    start_worker("jobs:worker", "--concurrency", "10")
    done = command("map", "reverse", *words, text=b"\n".join(lines(3000)))  # the last line has no end
    assert (done.returncode, done.stderr) == (0, b"")
    found = done.stdout.splitlines()
    expected = [line[::-1] for line in lines(3000)]
    assert (sorted(found), len(found)) == (sorted(expected), 3000)
    if words != ("--unordered",):
        assert found == expected


def test_nothing_becomes_nothing(command: Run) -> None:
    done = command("map", "reverse")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_results_come_while_input_does(start_worker: Start, pipeline: Open) -> None:
    start_worker("jobs:worker")
    process = pipeline("map", "reverse")
    assert process.stdin is not None
    assert process.stdout is not None
    for line in (b"abc\n", b"\n", b"def\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline() == line.strip()[::-1] + b"\n"
    process.stdin.write(b"the end")
    process.stdin.close()
    assert process.stdout.read() == b"dne eht\n"
    assert process.wait(WAIT_SECONDS) == 0


def test_unordered_results_do_not_wait_for_each_other(start_worker: Start, pipeline: Open, folder: Path) -> None:
    start_worker("jobs:worker", "--concurrency", "2")
    (folder / "there").touch()
    process = pipeline("map", "--unordered", "gate")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"open\nthere\n")
    process.stdin.close()
    process.stdout.readline()
    wait_for(lambda: "gate-open" in runs(folder), "the other job begun")
    (folder / "open").touch()
    assert len(process.stdout.read().splitlines()) == 1
    assert process.wait(WAIT_SECONDS) == 0


def test_failures_are_told_with_their_lines_and_do_not_end_it(start_worker: Start, command: Run) -> None:
    start_worker("jobs:worker")
    done = command("map", "divide", text=b"1\nx\n3\n0\n5\n")
    assert (done.returncode, done.stdout) == (1, b"100\n33\n20\n")
    told = done.stderr.decode().splitlines()
    assert re.fullmatch(r"postgear: line 2: job H:\S+ failed .*ValueError: invalid literal.*", told[0])
    assert re.fullmatch(r"postgear: line 4: job H:\S+ failed .*ZeroDivisionError: .*", told[1])
    assert told[2:] == ["postgear: 2 of 5 failed"]


def test_nul_separates_what_has_newlines(start_worker: Start, command: Run) -> None:
    start_worker("jobs:worker")
    assert command("map", "-0", "reverse", text=b"a\nb\0c\n\0\0").stdout == b"b\na\0\nc\0\0"
    assert command("map", "divide", "-5").stdout == b"-20\n"


def test_words_and_files_as_inputs(start_worker: Start, command: Run, folder: Path) -> None:
    start_worker("jobs:worker")
    (folder / "one").write_bytes(b"content\nof one")
    assert command("map", "reverse", "abc", "def").stdout == b"cba\nfed\n"
    done = command("map", "--files", "reverse", "one", "missing")
    assert (done.returncode, done.stdout) == (1, b"eno fo\ntnetnoc\n")
    assert b"postgear: argument 2: cannot be read: No such file or directory: missing\n" in done.stderr
    assert command("map", "--files", "reverse", text=b"one\n").stdout == b"eno fo\ntnetnoc\n"


def test_a_reader_that_leaves_ends_it_quietly(start_worker: Start, pipeline: Open) -> None:
    start_worker("jobs:worker")
    process = pipeline("map", "reverse")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(b"abc\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"def\n")
    process.stdin.flush()
    assert process.wait(WAIT_SECONDS) == 0
    assert process.stderr.read() == b""


def test_input_of_any_size_needs_little_memory(start_worker: Start, pipeline: Open) -> None:
    start_worker("jobs:worker", "--concurrency", "4")
    process = pipeline("map", "-n", "2", "reverse")
    assert process.stdin is not None
    assert process.stdout is not None
    source = subprocess.Popen(["sh", "-c", "yes | tr '\\n' x | head -c 200000000 | fold -w 1000000"], stdout=process.stdin)
    process.stdin.close()
    sizes = set()
    most_kib = 0
    for line in process.stdout:
        sizes.add(len(line))
        # Not getrusage: that of a child begins with what this process had when it forked.
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()):
            most_kib = int(found.group(1))
    assert source.wait(WAIT_SECONDS) == 0
    assert process.wait(WAIT_SECONDS) == 0
    assert sizes == {1_000_001}
    assert 0 < most_kib * 1024 < 150_000_000


@pytest.mark.parametrize("words", [("map", "reverse"), ("submit", "--lines", "reverse")])
def test_an_unreachable_server_ends_it(words: tuple[str, ...], command: Run) -> None:
    done = command(*words, text=b"a\nb\n", address="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"Connection refused" in done.stderr


def test_a_server_that_is_killed_ends_it_with_what_was_done(
    start_worker: Start, pipeline: Open, server: ServerProcess, folder: Path
) -> None:
    start_worker("jobs:worker", "--concurrency", "2")
    (folder / "there").touch()
    process = pipeline("map", "gate")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"never\nthere\n")
    process.stdin.flush()
    wait_for(lambda: {"gate-never", "gate-there"} <= runs(folder).keys(), "both jobs begun")
    server.kill()
    process.stdin.write(b"more\n")
    output, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 6
    assert b"postgear: line 1: " in errors
    assert b"cannot be reached" in errors.splitlines()[-2] + errors.splitlines()[-1]
    assert len(output.splitlines()) <= 1


def test_the_first_server_that_answers_is_taken(start_worker: Start, command: Run, server: ServerProcess) -> None:
    start_worker("jobs:worker")
    assert command("map", "reverse", "abc", address=f"127.0.0.1:1,{server.address}").stdout == b"cba\n"


def test_nobody_who_runs_it_is_told_after_the_time_limit(command: Run) -> None:
    done = command("map", "--timeout", "0.3", "nobody", "x")
    assert done.returncode == 6
    assert b"postgear: no result within 0.3 s; no worker for nobody?\n" in done.stderr


@pytest.mark.parametrize(
    "words", [("map", "f", "--in-flight", "0"), ("map", ""), ("submit", "-0", "f", "x"), ("submit", "--lines", "f", "x")]
)
def test_wrong_words_exit_with_2(words: tuple[str, ...], command: Run) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert b"--help" in done.stderr or b"usage:" in done.stderr


def test_a_bar_is_drawn_on_a_terminal(start_worker: Start, server: ServerProcess, folder: Path) -> None:
    start_worker("jobs:worker")
    (folder / "in").write_bytes(b"1\nx\n3\n")
    master, slave = pty.openpty()
    with (folder / "in").open() as source, (folder / "out").open("wb") as target:
        process = subprocess.Popen(
            [PROGRAM, "map", "divide", "--server", server.address],
            stdin=source,
            stdout=target,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
        os.close(master)
        assert process.wait(WAIT_SECONDS) == 1
    assert (folder / "out").read_bytes() == b"100\n33\n"
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    assert "100% 3 done, 1 failed" in text
    assert "postgear: line 2: job " in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux tells the end so
        return b""


def test_submitted_lines_are_stored_in_order_and_their_handles_written(command: Run, dsn: str) -> None:
    done = command("submit", "--lines", "index", "--priority", "high", text=b"".join(line + b"\n" for line in lines(20_000)))
    assert (done.returncode, done.stderr) == (0, b"")
    handles = done.stdout.decode().split()
    assert [f"H:test:{row[0]}" for row in query(dsn, "select id from postgear.job order by id")] == handles
    assert len(handles) == 20_000
    assert query(dsn, "select distinct priority from postgear.job") == [(0,)]
    workloads = query(dsn, "select workload from postgear.job order by id")
    assert [bytes(row[0]) for row in workloads] == lines(20_000)


def test_lines_are_submitted_as_they_come(pipeline: Open) -> None:
    process = pipeline("submit", "--lines", "index")
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(3):
        process.stdin.write(b"%d\n" % number)
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"H:test:")
    process.stdin.close()
    assert process.wait(WAIT_SECONDS) == 0


def test_lines_that_are_refused_are_told(command: Run, server: ServerProcess) -> None:
    with Peer(server.host, server.port) as admin:
        for line in (b"create function index\n", b"maxqueue index 2\n"):
            admin.write(line)
            assert admin.line().startswith(b"OK")
    done = command("submit", "--lines", "index", text=b"a\nb\nc\nd\n")
    assert done.returncode == 6
    assert len(done.stdout.split()) == 2
    told = done.stderr.decode().splitlines()
    assert [line[:18] for line in told[:2]] == ["postgear: line 3: ", "postgear: line 4: "]
    assert "QUEUE_ERROR" in told[0]
    assert told[2] == "postgear: 2 of 4 refused"


def test_equal_lines_can_be_one_job(command: Run) -> None:
    handles = command("submit", "--lines", "--unique", "-", "index", text=b"a\nb\na\n").stdout.split()
    assert (handles[0], len(set(handles))) == (handles[2], 2)
