"""`postgear worker`: how it starts, stops, and lives with the death of its processes."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from postgear import cli
from tests.commands.conftest import APP
from tests.commands.test_worker_restart import do, runs
from tests.commands.worker_process import PROGRAM, WAIT_SECONDS, WorkerProcess, is_alive
from tests.server.bytes import Peer
from tests.server.load import count, query, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., WorkerProcess]
NOBODY = "127.0.0.1:1"
"""Where no server is."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_jobs_that_run_end_and_takes_no_more(
    number: signal.Signals, start_worker: Start, client: Peer, folder: Path, dsn: str
) -> None:
    worker = start_worker("jobs:worker", "--processes", "2")
    handle = client.submit("SUBMIT_JOB", b"gate", b"", b"open")
    wait_for(lambda: "gate-open" in runs(folder), "the job begun")
    worker.send(number)
    worker.wait_for_log(r" process ended")
    client.submit("SUBMIT_JOB_BG", b"note", b"", b"late")
    assert worker.process.poll() is None
    (folder / "open").touch()

    name, body = client.packet()
    assert (name, body.split(b"\0")[0]) == ("WORK_COMPLETE", handle)
    assert worker.process.wait(WAIT_SECONDS) == 0
    assert list(runs(folder)) == ["gate-open"]
    assert count(dsn) == 1


def test_jobs_that_outlast_the_drain_go_back_to_the_queue(start_worker: Start, client: Peer, folder: Path, dsn: str) -> None:
    worker = start_worker("jobs:worker", "--drain-seconds", "0.1")
    client.submit("SUBMIT_JOB_BG", b"gate", b"", b"open")
    wait_for(lambda: "gate-open" in runs(folder), "the job begun")
    assert worker.end() == 0
    (folder / "open").touch()
    start_worker("jobs:worker")

    wait_for(lambda: count(dsn) == 0, "the job run elsewhere")
    assert len(set(runs(folder)["gate-open"])) == 2


def test_a_process_that_blocks_its_loop_is_killed_after_the_drain(
    start_worker: Start, client: Peer, folder: Path, dsn: str
) -> None:
    text = (
        "\n@worker.function('block')\nasync def block(text: str) -> str:\n    note(text)\n    time.sleep(1000)\n    return ''\n"
    )
    (folder / "jobs.py").write_text(APP + text)
    worker = start_worker("jobs:worker", "--drain-seconds", "0")
    client.submit("SUBMIT_JOB_BG", b"block", b"", b"x")
    wait_for(lambda: "x" in runs(folder), "the job begun")

    assert worker.end() == 0
    assert "ending at once" in worker.log()
    wait_for(lambda: count(dsn, "lease is null") == 1, "the job back in the queue")


def test_a_second_signal_ends_at_once(start_worker: Start, client: Peer, folder: Path, dsn: str) -> None:
    worker = start_worker("jobs:worker", "--drain-seconds", "1000")
    client.submit("SUBMIT_JOB_BG", b"gate", b"", b"never")
    wait_for(lambda: "gate-never" in runs(folder), "the job begun")
    worker.send(signal.SIGTERM)
    worker.wait_for_log(r" stopping processes=1")

    assert worker.end() == 0
    wait_for(lambda: count(dsn, "lease is null") == 1, "the job back in the queue")


def test_a_killed_process_is_replaced_and_its_job_runs_again(start_worker: Start, client: Peer, folder: Path) -> None:
    worker = start_worker("jobs:worker")
    handle = client.submit("SUBMIT_JOB", b"gate", b"", b"open")
    wait_for(lambda: "gate-open" in runs(folder), "the job begun")
    (killed,) = worker.children()
    os.kill(killed, signal.SIGKILL)
    worker.wait_for_log(rf"process died process={killed} by=\"signal SIGKILL\"")
    wait_for(lambda: len(runs(folder)["gate-open"]) == 2, "the job begun again")
    (folder / "open").touch()

    client.expect("WORK_COMPLETE", handle, b"%d" % runs(folder)["gate-open"][1])
    assert worker.end() == 0


def test_processes_that_die_soon_are_started_ever_less_often(start_worker: Start, folder: Path) -> None:
    (folder / "jobs.py").write_text("import os\nos._exit(7)\n")
    worker = start_worker("jobs:worker", "--servers", NOBODY, is_ready=False)
    assert worker.wait_for_log(r"waiting before the next start seconds=(\S+)", 3) == ["1.0", "2.0", "4.0"]

    assert len(re.findall(r"process died process=\d+ by=\"exit status 7\"", worker.log())) == 3
    assert worker.end() == 0


def test_processes_whose_parent_is_killed_finish_their_jobs_and_end(start_worker: Start, client: Peer, folder: Path) -> None:
    worker = start_worker("jobs:worker", "--processes", "2")
    children = worker.children()
    handle = client.submit("SUBMIT_JOB", b"gate", b"", b"open")
    wait_for(lambda: "gate-open" in runs(folder), "the job begun")
    worker.end(signal.SIGKILL)
    (busy,) = runs(folder)["gate-open"]
    wait_for(lambda: [is_alive(pid) for pid in children].count(True) == 1, "the idle process ended")
    assert is_alive(busy)
    (folder / "open").touch()

    client.expect("WORK_COMPLETE", handle, b"%d" % busy)
    wait_for(lambda: not is_alive(busy), "the busy process ended")


def test_a_process_is_not_kept_by_threads_of_the_application(start_worker: Start, folder: Path) -> None:
    (folder / "jobs.py").write_text(APP + "\nimport threading\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n")
    worker = start_worker("jobs:worker")
    (old,) = worker.children()
    worker.send(signal.SIGHUP)
    worker.wait_for_log(rf"process ended process={old} by=\"signal SIGKILL\"")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("nothing", r"postgear: there is no module nothing; looked in /"),
        ("broken:worker", r"postgear: broken cannot be imported:\nTraceback .*\n  File \"/.*/broken.py\", line 1, .*\n"),
        ("syntax", r"SyntaxError: "),
        ("exits", r"SystemExit: 3"),
        ("jobs:nothing", r"postgear: jobs:nothing: there is no nothing in jobs; the workers there are: worker\n"),
        ("jobs:note", r"postgear: jobs:note: that is no worker, but of type Handler"),
        ("two", r"postgear: two: write two:NAME; the workers there are: one, other\n"),
        ("nothing.py", r"postgear: there is no file nothing.py\n"),
    ],
)
def test_what_cannot_be_imported_is_told_and_ends_the_start(app: str, said: str, start_worker: Start, folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_there\n")
    (folder / "syntax.py").write_text("def f(:\n")
    (folder / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "two.py").write_text("from postgear import Worker\none, other = Worker(), Worker()\n")
    worker = start_worker(app, "--processes", "2", "--servers", NOBODY, is_ready=False)

    assert worker.process.wait(WAIT_SECONDS) == 2
    assert re.search(said, worker.log()), worker.log()
    assert worker.log().count("postgear: ") == 1, "told once, not by each process"


MAIN = """
if __name__ == "__main__":
    import logging, sys
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    worker.configure(servers=sys.argv[1])
    print(worker.run(processes=2))
"""


def test_run_starts_several_processes(start_worker: Start, server: ServerProcess, client: Peer, folder: Path) -> None:
    text = APP.replace("Worker()", f"Worker({server.address!r})") + MAIN
    (folder / "program.py").write_text(text)
    worker = start_worker("program.py", server.address, command=sys.executable, is_ready=False)
    worker.wait_for_log(r"^ready$")
    parent = worker.process.pid
    first = int(do(client, b"note", b"x"))
    assert first != parent
    worker.send(signal.SIGHUP)
    worker.wait_for_log(r"^restarted$")
    assert int(do(client, b"note", b"y")) not in (first, parent)
    assert worker.end() == 0
    assert worker.log().endswith("stopped\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker.run()\n", 'put it under: if __name__ == "__main__"'),
        ("if __name__ == '__main__':\n    Worker().run(processes=2)\n", "a worker that is a name of a module"),
        ("if __name__ == '__main__':\n    worker.run(processes=0)\n", "processes 0 given, must be 1 or more"),
    ],
)
def test_run_tells_what_it_needs(text: str, said: str, start_worker: Start, folder: Path) -> None:
    (folder / "program.py").write_text(APP + text)
    if "__main__" in text:
        worker = start_worker("program.py", command=sys.executable, is_ready=False)
        assert worker.process.wait(WAIT_SECONDS) == 1
    else:
        worker = start_worker("program.py", "--servers", NOBODY, is_ready=False)
        assert worker.process.wait(WAIT_SECONDS) == 2
    assert said in worker.log()


@pytest.mark.parametrize("app", ["jobs", "jobs:worker", "jobs.py", "jobs.py:worker"])
def test_a_worker_is_named_by_module_or_file(app: str, start_worker: Start, client: Peer) -> None:
    worker = start_worker(app, "--client-id", "named", "--concurrency", "3")
    assert do(client, b"note", b"x")
    client.write(b"workers\n")
    lines = []
    while (line := client.line()) != b".\n":
        lines.append(line)
    assert [line for line in lines if b" named : " in line]
    assert worker.end() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give either MODULE:APP or --exec COMMAND"),
        (["jobs", "--exec", "cat", "-f", "f"], "give either MODULE:APP or --exec COMMAND"),
        (["--exec", "cat"], "--exec COMMAND and -f FUNCTION belong together"),
        (["jobs", "-f", "f"], "--exec COMMAND and -f FUNCTION belong together"),
        (["jobs", "--log-level", "LOUD"], "--log-level: 'LOUD' given"),
        (["jobs", "--processes", "0"], "argument --processes: 0 given, must be a number from 1 on"),
        (["jobs", "--max-memory", "much"], "argument --max-memory: much given, must be a size like 500MB or 2GiB"),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        sys.exit(cli.main(["worker", *words]))
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_wrong_settings_of_a_worker_end_the_start(start_worker: Start) -> None:
    worker = start_worker("jobs:worker", "--servers", "a:b:c", is_ready=False)
    assert worker.process.wait(WAIT_SECONDS) == 2
    assert "postgear: servers: a:b:c is not HOST:PORT" in worker.log()


def test_systemd_is_told(start_worker: Start, folder: Path) -> None:
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(WAIT_SECONDS)
        worker = start_worker("jobs:worker", environment={"NOTIFY_SOCKET": str(path)})
        assert heard.recv(1000) == b"READY=1"
        worker.send(signal.SIGHUP)
        assert heard.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert heard.recv(1000) == b"READY=1"
        assert worker.end() == 0
        assert heard.recv(1000) == b"STOPPING=1"


class Terminal:
    """`postgear worker` as the foreground job of a terminal of its own."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.master, slave = pty.openpty()
        # start_new_session and the ioctl in setsid's stead: the terminal becomes that of the new session.
        command = ["setsid", "--ctty", str(PROGRAM), "worker", "jobs:worker", "--servers", server.address]
        self.process = subprocess.Popen(command, cwd=folder, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = b""

    def wait_for(self, text: bytes) -> None:
        while text not in self.text:
            assert select.select([self.master], [], [], WAIT_SECONDS)[0], self.text
            self.text += os.read(self.master, 65536)


def test_ctrl_c_drains_and_a_lost_terminal_stops(server: ServerProcess, client: Peer, folder: Path) -> None:
    terminal = Terminal(server, folder)
    terminal.wait_for(b" ready processes=")
    handle = client.submit("SUBMIT_JOB", b"gate", b"", b"open")
    wait_for(lambda: "gate-open" in runs(folder), "the job begun")
    os.write(terminal.master, b"\x03")
    terminal.wait_for(b" stopping processes=1")
    (folder / "open").touch()
    client.expect("WORK_COMPLETE", handle, b"%d" % runs(folder)["gate-open"][0])
    assert terminal.process.wait(WAIT_SECONDS) == 0
    os.close(terminal.master)

    terminal = Terminal(server, folder)
    terminal.wait_for(b" ready processes=")
    os.close(terminal.master)
    assert terminal.process.wait(WAIT_SECONDS) == 0


def test_a_worker_on_a_server_that_is_away_waits_for_it(
    folder: Path, dsn: str, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    server.stop()
    worker = WorkerProcess("jobs:worker", "--servers", server.address, folder=folder, log_path=folder / "log")
    try:
        worker.wait_for_log(r"starting processes=1")
        started = start_server("--listen", server.address)
        worker.wait_for_log(r" ready processes=1")
        with Peer(started.host, started.port) as client:
            assert do(client, b"note", b"x")
        assert query(dsn, "select count(*) from postgear.job") == [(0,)]
        assert worker.end() == 0
    finally:
        worker.clean_up()
