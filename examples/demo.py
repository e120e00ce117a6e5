"""The demo: rows become jobs, two workers run them. ``./dev demo`` starts it; it can be run again and again.

An embedded PostgreSQL and ``postgear serve`` are started, a table with a trigger is made (``article.sql``), two workers
connect (Debian's ``gearman`` command and ``worker.py``), and rows are inserted. Everything is stopped at the end; the data
folder stays, so that the commands printed last go on from there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg
from psycopg import sql
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from postgear.embedded import EmbeddedPostgres
from postgear.errors import PostgearError

ROWS = 200
ROWS_A_TRANSACTION = 10
GEARMAN_PORT = 4730
START_SECONDS = 60
JOBS_SECONDS = 60
EXAMPLES = Path(__file__).parent
POSTGEAR = Path(sys.executable).with_name("postgear")


class DemoError(Exception):
    """Something the demo needs did not work; the message says what."""


class Workers:
    """The two workers; each writes one line a job to a file of its own."""

    def __init__(self, folder: Path, address: str, stack: ExitStack) -> None:
        host, _, port = address.rpartition(":")
        self._stock = folder / "stock.jobs"
        self._python = folder / "python.jobs"
        # The stock command hands each workload to a shell on its standard input; what that prints is the result.
        script = 'sleep 0.02; (cat; echo) | tee -a "$0"'
        stock = ["gearman", "-h", host, "-p", port, "-w", "-f", "index", "--", "sh", "-c", script, str(self._stock)]
        python = [sys.executable, "-m", "examples.worker", address, "index"]
        stack.enter_context(running(stock, folder / "stock.log"))
        stack.enter_context(running(python, self._python))

    def counts(self) -> tuple[int, int]:
        """Return how many jobs the stock worker and the Python worker have run."""
        return count_lines(self._stock), count_lines(self._python)


def main() -> int:
    """Run the demo and return the exit code."""
    signal.signal(signal.SIGTERM, stop_at_once)
    console = Console(highlight=False)
    try:
        with ExitStack() as stack:
            run(console, stack)
    except (DemoError, PostgearError, psycopg.Error, OSError) as error:
        console.print(f"[bold red]The demo failed:[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(console: Console, stack: ExitStack) -> None:
    """Start everything on *stack*, insert the rows, show the jobs, say what to try next."""
    if shutil.which("gearman") is None:
        raise DemoError("there is no command gearman: `apt-get install gearman-tools`")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postgear-demo-")))
    data_dir = Path("/var/lib/postgear-demo") if os.geteuid() == 0 else Path.home() / ".local/share/postgear-demo"
    postgres = EmbeddedPostgres(data_dir)
    console.print(f"Starting an embedded PostgreSQL in {data_dir} …", soft_wrap=True)
    stack.callback(postgres.stop)
    dsn = postgres.start()
    refuse_other_servers(dsn, data_dir)
    console.print("Starting postgear …")
    log = folder / "postgear.log"
    serve = [str(POSTGEAR), "serve", "--data-dir", str(data_dir), "--listen", f"127.0.0.1:{free_port()}"]
    server = stack.enter_context(running(serve, log))
    address = wait_for_address(server, log)
    console.print(f"postgear listens on {address}.")
    console.print(
        "Making a table [bold]article[/] whose insert trigger calls gman_do_background('index', row_to_json(new)).",
        soft_wrap=True,
    )
    with psycopg.connect(dsn) as connection:
        connection.execute(sql.SQL((EXAMPLES / "article.sql").read_text()))
    console.print("Starting two workers for [bold]index[/]: Debian's [bold]gearman -w[/] and [bold]examples/worker.py[/].\n")
    workers = Workers(folder, address, stack)
    try:
        show_jobs(console, dsn, workers)
    except DemoError as error:
        raise DemoError(f"{error}\n{log.read_text()}") from None
    say_what_next(console, dsn, address, data_dir)


def refuse_other_servers(dsn: str, data_dir: Path) -> None:
    """Raise DemoError if a server of an earlier "what to try next" runs: its workers would take the demo's jobs."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select to_regclass('postgear.server') is not null").fetchone()
        servers = connection.execute("select address, pid from postgear.server").fetchall() if row and row[0] else []
    for address, pid in servers:
        if Path(f"/proc/{pid}").exists():
            raise DemoError(
                f"a postgear on {data_dir} runs already, at {address}, and its workers would take the demo's jobs; "
                f"stop it with: kill {pid}"
            )


def show_jobs(console: Console, dsn: str, workers: Workers) -> None:
    """Insert the rows while the workers run the jobs, until every job has been run."""
    with ExitStack() as stack:
        progress = None
        if console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description:<46}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            progress = stack.enter_context(Progress(*columns, console=console))
            rows_bar = progress.add_task("rows inserted", total=ROWS)
            jobs_bar = progress.add_task("jobs run", total=ROWS)
        connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        roll_back_some(connection)
        inserted = 0
        shown = 0
        deadline = time.monotonic() + JOBS_SECONDS
        while True:
            if inserted < ROWS:
                inserted += insert_rows(connection, inserted)
            done = inserted >= ROWS and queued(connection) == 0
            stock, python = workers.counts()
            if progress is not None:
                by_whom = f"jobs run ({stock} by gearman -w, {python} by worker.py)"
                progress.update(rows_bar, completed=inserted)
                progress.update(jobs_bar, completed=stock + python, description=by_whom)
            elif done or stock + python >= shown + ROWS // 5:
                shown = stock + python
                console.print(f"{inserted} rows inserted, {stock} jobs by gearman -w, {python} jobs by worker.py", soft_wrap=True)
            if done:
                break
            if time.monotonic() > deadline:
                raise DemoError(f"{queued(connection)} of {ROWS} jobs are not run after {JOBS_SECONDS} s")
            time.sleep(0.05)
    by_others = "" if stock + python >= ROWS else " Another worker that was connected ran the rest."
    console.print(f"\n[bold green]{ROWS} rows, {stock + python} jobs run, none left.[/]{by_others}")
    console.print("The 5 rows of a transaction that was rolled back made no job.")


def insert_rows(connection: psycopg.Connection, first: int) -> int:
    """Insert some rows in one transaction: they and their jobs become visible together."""
    numbers = range(first + 1, first + 1 + ROWS_A_TRANSACTION)
    with connection.transaction():
        for number in numbers:
            connection.execute("insert into article (title, body) values (%s, %s)", (f"Article {number}", "Some text."))
    return len(numbers)


def roll_back_some(connection: psycopg.Connection) -> None:
    """Insert rows in a transaction that does not commit: no row, no job."""
    with connection.transaction(force_rollback=True):
        connection.execute("insert into article (title, body) select 'Never', 'seen' from generate_series(1, 5)")


def queued(connection: psycopg.Connection) -> int:
    row = connection.execute("select count(*) from postgear.job").fetchone()
    assert row is not None
    return int(row[0])


def say_what_next(console: Console, dsn: str, address: str, data_dir: Path) -> None:
    """Print the commands that start it all again and play with it."""
    host, _, port = address.rpartition(":")
    commands = (
        ("Start the server again, on the same data:", f"{POSTGEAR} serve --data-dir {data_dir} --listen {address}"),
        (
            "In a second terminal, a worker that counts bytes and shows what it counted:",
            f"gearman -h {host} -p {port} -w -f index -- sh -c 'wc -c | tee /dev/stderr'",
        ),
        (
            "In a third, a row that becomes a job; the worker shows its bytes:",
            f"psql '{dsn}' -c \"insert into article (title, body) values ('Hello', 'World')\"",
        ),
        ("A job from the command line, with its result:", f"echo hello | gearman -h {host} -p {port} -f index"),
        ("What is queued, and who works:", f"{POSTGEAR} status --server {address}; gearadmin -h {host} -p {port} --workers"),
    )
    console.print("\n[bold]What to try next[/] (everything the demo started is stopped)\n")
    for text, command in commands:
        console.print(f"  {text}")
        console.print(f"    {command}", style="cyan", markup=False, soft_wrap=True)
    console.print()


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* with its output in *log*; end it and what it started when the context ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=EXAMPLES.parent, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server logs that it is ready and return its HOST:PORT."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if match := re.search(r"\bready\b.*\blisten=\"?([^\s,\"]+:\d+)", log.read_text()):
            return match[1]
        time.sleep(0.02)
    raise DemoError(f"postgear does not become ready:\n{log.read_text()}")


def free_port() -> int:
    """Return Gearman's port, or 0 (any) if something else listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", GEARMAN_PORT))
        except OSError:
            return 0
    return GEARMAN_PORT


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stop_at_once(number: int, frame: object) -> NoReturn:
    """Leave on SIGTERM the way out that stops everything."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
