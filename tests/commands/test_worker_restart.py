"""`postgear worker`: restarts without a gap, by signal and by changed files."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.conftest import APP
from tests.commands.worker_process import WorkerProcess, is_alive
from tests.server.bytes import Peer
from tests.server.load import Submitter, count, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., WorkerProcess]
GROW = """
kept = []

@worker.function("grow")
def grow(text: str) -> str:
    kept.append(b"x" * 200_000_000)
    return note(text)
"""


def runs(folder: Path) -> dict[str, list[int]]:
    """What ran, and in which processes."""
    found: dict[str, list[int]] = {}
    path = folder / "runs"
    for line in path.read_text().splitlines() if path.exists() else ():
        text, pid = line.split()
        found.setdefault(text, []).append(int(pid))
    return found


def do(client: Peer, function: bytes, workload: bytes) -> bytes:
    """Run a job and return its result."""
    handle = client.submit("SUBMIT_JOB", function, b"", workload)
    name, body = client.packet()
    assert (name, body.split(b"\0")[0]) == ("WORK_COMPLETE", handle), (name, body)
    return body.split(b"\0", 1)[1]


@pytest.mark.parametrize("is_direct", [False, True], ids=["server", "database"])
def test_restarts_under_a_stream_of_jobs_run_each_exactly_once(
    is_direct: bool, start_worker: Start, server: ServerProcess, folder: Path, dsn: str
) -> None:
    source = ("--dsn", dsn) if is_direct else ()
    worker = start_worker("jobs:worker", "--processes", "2", "--concurrency", "4", *source)
    submitter = Submitter(server, b"note", burst=5)
    submitter.start()
    for number in range(1, 4):
        enough = len(runs(folder)) + 100
        wait_for(lambda enough=enough: len(runs(folder)) > enough, "jobs run between restarts")  # type: ignore[misc]
        worker.send(signal.SIGHUP)
        worker.wait_for_log(r" restarted generation=", number)
    submitter.stop()
    wait_for(lambda: count(dsn) == 0, "an empty queue")
    assert worker.end() == 0

    found = runs(folder)
    assert sorted(found, key=int) == [str(number) for number in range(len(submitter.acked))]
    assert [text for text, pids in found.items() if len(pids) != 1] == []
    assert len({pid for pids in found.values() for pid in pids}) >= 6, "every generation ran some"
    assert "died" not in worker.log()
    assert "possible duplicate" not in worker.log()


def test_a_restart_waits_for_old_jobs_without_a_bound_and_new_processes_run_meanwhile(
    start_worker: Start, client: Peer, folder: Path
) -> None:
    worker = start_worker("jobs:worker", "--drain-seconds", "0")
    (old,) = worker.children()
    handle = client.submit("SUBMIT_JOB", b"gate", b"", b"open")
    wait_for(lambda: "gate-open" in runs(folder), "the job begun")
    worker.send(signal.SIGHUP)
    worker.wait_for_log(r" restarted generation=2 finishing=1")
    new = int(do(client, b"note", b"meanwhile"))

    assert new != old
    assert is_alive(old)
    (folder / "open").touch()
    client.expect("WORK_COMPLETE", handle, b"%d" % old)
    worker.wait_for_log(rf"process ended process={old} by=\"exit status 0\"")
    assert runs(folder)["gate-open"] == [old]


def test_a_restart_that_cannot_import_leaves_the_old_processes(start_worker: Start, client: Peer, folder: Path) -> None:
    worker = start_worker("jobs:worker", "--processes", "2")
    old = worker.children()
    (folder / "jobs.py").write_text("import nothing_there\n")
    worker.send(signal.SIGHUP)
    worker.wait_for_log(r"not restarted, the old processes stay reason=.*No module named 'nothing_there'")
    assert int(do(client, b"note", b"x")) in old

    (folder / "jobs.py").write_text(APP.replace("return str(os.getpid())", "return 'mended'"))
    worker.send(signal.SIGHUP)
    worker.wait_for_log(r" restarted generation=3")
    assert do(client, b"note", b"y") == b"mended"
    for pid in old:
        worker.wait_for_log(rf"process ended process={pid} by=\"exit status 0\"")


def test_a_restart_that_dies_leaves_the_old_processes(start_worker: Start, client: Peer, folder: Path) -> None:
    worker = start_worker("jobs:worker")
    old = worker.children()
    (folder / "jobs.py").write_text("import os\nos._exit(9)\n")
    worker.send(signal.SIGHUP)
    worker.wait_for_log(r"not restarted, the old processes stay reason=.*exit status 9 before it was ready")

    assert int(do(client, b"note", b"x")) in old
    assert worker.end() == 0


def test_a_second_restart_replaces_one_that_does_not_come_up(start_worker: Start, client: Peer, folder: Path) -> None:
    worker = start_worker("jobs:worker")
    (folder / "jobs.py").write_text("from pathlib import Path\nimport time\nPath('hangs').touch()\ntime.sleep(1000)\n")
    worker.send(signal.SIGHUP)
    wait_for((folder / "hangs").exists, "a process that hangs in its import")
    (folder / "jobs.py").write_text(APP.replace("return str(os.getpid())", "return 'mended'"))
    worker.send(signal.SIGHUP)
    worker.wait_for_log(r" restarted generation=3")

    assert do(client, b"note", b"x") == b"mended"
    assert worker.end() == 0


def test_reload_restarts_when_a_file_changes(start_worker: Start, client: Peer, folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("ANSWER = 'one'\n")
    (folder / "jobs.py").write_text(
        APP + "\nimport shop\n\n@worker.function('answer')\ndef answer(text: str) -> str:\n    return shop.ANSWER\n"
    )
    worker = start_worker("jobs:worker", "--reload")
    assert do(client, b"answer", b"") == b"one"
    (folder / "shop" / "__init__.py").write_text("ANSWER = 'another'\n")
    worker.wait_for_log(r" restarting reason=.*shop/__init__.py has changed")
    worker.wait_for_log(r" restarted generation=2")
    worker.wait_for_log(r" process ended ")  # until then the old one may still take a job
    assert do(client, b"answer", b"") == b"another"

    (folder / "shop" / "__init__.py").write_text("ANSWER = (\n")
    worker.wait_for_log(r"not restarted, the old processes stay reason=.*SyntaxError")
    assert do(client, b"answer", b"") == b"another"
    (folder / "shop" / "__init__.py").write_text("ANSWER = 'mended'\n")
    worker.wait_for_log(r" restarted generation=")
    wait_for(lambda: do(client, b"answer", b"") == b"mended", "the mended code")
    assert worker.end() == 0


def test_a_process_that_has_run_its_number_of_jobs_is_replaced(start_worker: Start, client: Peer, folder: Path, dsn: str) -> None:
    worker = start_worker("jobs:worker", "--max-jobs", "3")
    for number in range(10):
        client.submit("SUBMIT_JOB_BG", b"note", b"", b"%d" % number)
    wait_for(lambda: count(dsn) == 0, "an empty queue", 30)
    worker.wait_for_log(r"process retires process=\d+ reason=max_jobs", 3)

    found = runs(folder)
    assert sorted(found) == [str(number) for number in range(10)]
    assert [text for text, pids in found.items() if len(pids) != 1] == []
    by_process = [pid for pids in found.values() for pid in pids]
    assert max(map(by_process.count, by_process)) <= 3
    assert not re.search(" died|waiting before", worker.log())
    assert worker.end() == 0


def test_a_process_that_holds_too_much_memory_is_replaced(start_worker: Start, client: Peer, folder: Path) -> None:
    (folder / "jobs.py").write_text(APP + GROW)
    worker = start_worker("jobs:worker", "--max-memory", "150MB")
    (old,) = worker.children()
    assert int(do(client, b"grow", b"")) == old
    worker.wait_for_log(rf"process retires process={old} reason=max_memory")

    worker.wait_for_log(r"process ready", 2)
    assert int(do(client, b"note", b"")) != old
    assert worker.end() == 0


def test_a_process_that_retires_is_replaced_before_its_last_job_ends(start_worker: Start, client: Peer, folder: Path) -> None:
    worker = start_worker("jobs:worker", "--max-jobs", "1", "--drain-seconds", "0")
    (old,) = worker.children()
    handle = client.submit("SUBMIT_JOB", b"gate", b"", b"open")
    worker.wait_for_log(r"process retires")
    assert int(do(client, b"note", b"x")) != old
    (folder / "open").touch()
    client.expect("WORK_COMPLETE", handle, b"%d" % old)
