"""gearmand's command line: what is taken, what is refused with which words, and what it means.

The accepted and refused command lines are the ones that libgearman's own test program gives to gearmand.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from postgear import gearmand
from postgear.config import Config
from postgear.errors import ConfigError

ACCEPTED = """
--check-args
--check-args --backlog=10
--check-args -b 10
--check-args --daemon
--check-args -d
--check-args -dR
--check-args --coredump
--check-args --exceptions
--check-args --file-descriptors=10
--check-args -f 10
--check-args --help
--check-args -h
--check-args --keepalive
--check-args --keepalive-idle=10 --keepalive-interval=3 --keepalive-count=10
--check-args --keepalive-idle -1
--check-args --log-file=stderr
--check-args -l "tmp/foo"
--check-args --listen=10
--check-args -L 10
--check-args --port=10
--check-args -p10
--check-args --pid-file="tmp/gearmand.pid"
--check-args --round-robin
--check-args -Rp 10
--check-args --syslog
--check-args --ssl
--check-args --threads=10
--check-args -t 8
--check-args --user=nobody
--check-args --version
--check-args --verbose=FATAL
--check-args --verbose=ALERT
--check-args --verbose=CRITICAL
--check-args --verbose=NOTICE
--check-args --worker-wakeup=4
--check-args -w 4
--check-args --protocol=http --http-port=8090
--check-args --queue-type=builtin
--check-args --queue-type=nope
--check-args --job-retries=4
--check-args --job-retries -1
--check-args --job-handle-prefix=my_own_private_handle
--check-args --hashtable-buckets=2000
--check-args --libsqlite3-db=x --store-queue-on-shutdown
--check-args --config-file=simple.conf
""".strip().splitlines()

REFUSED = """
foo
--log
--check-args --bogus
--check-args --bogus=1
--check-args -z
--check-args -- x
--check-args --port
--check-args --port=
--check-args --port 1 --port 2
--check-args --verbose=BAD
--check-args --verbose=info
--check-args --verbose
--check-args -j x
--check-args -j 1.5
--check-args --threads=x
--check-args --hashtable-buckets=0
--check-args --round-robin=1
--check-args --config-file
--check-args --config-file=nowhere.conf
--check-args --config-file=unknown.conf
--check-args --config-file=twice.conf
""".strip().splitlines()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("GEARMAND_PORT", "POSTGEAR_DSN", "PGHOST", "PGDATABASE", "PGSERVICE", "PGHOSTADDR"):
        monkeypatch.delenv(variable, raising=False)
    Path("simple.conf").write_text("--port 5999 --verbose=INFO\n-R words without a dash\n")
    Path("unknown.conf").write_text("--port=5999 --bogus")
    Path("twice.conf").write_text("--port 1 --port 2")


def configure(line: str, **environ: str) -> Config:
    return gearmand.configure(gearmand.read_options(line.split(), "none.conf"), environ)


@pytest.mark.parametrize("line", ACCEPTED)
def test_accepted(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert gearmand.main(line.split()) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert gearmand.main(line.split()) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("gearmand: ")


@pytest.mark.skipif(shutil.which("gearmand") is None, reason="gearmand is not installed")
@pytest.mark.parametrize("line", ACCEPTED + REFUSED)
def test_exit_code_and_message_are_those_of_gearmand(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    genuine = subprocess.run(["gearmand", *line.split()], capture_output=True, text=True, timeout=10, check=False)
    code = gearmand.main(line.split())
    assert (code, capfd.readouterr().err) == (genuine.returncode, genuine.stderr)


@pytest.mark.parametrize(
    "line", ["-p abc", "-p 65536", "-j 256", "-j -2", "-w 256", "--job-handle-prefix " + "x" * 43, "-b 0", "-vvv"]
)
def test_what_gearmand_takes_and_misreads_is_refused(line: str) -> None:
    assert gearmand.main(["--check-args", *line.split()]) == 1


def test_defaults_are_those_of_gearmand() -> None:
    config = configure("")
    assert "0.0.0.0:4730" in config.listen
    assert set(config.listen) <= {"0.0.0.0:4730", "[::]:4730"}
    assert (config.backlog, config.log_level, config.bind_wait_seconds) == (32, "ERROR", 20.0)
    assert (config.job_retries, config.worker_wakeup) == (-1, 0)
    assert (config.round_robin, config.exceptions, config.keepalive) == (False, False, False)
    assert config.dsn is None


def test_each_option_reaches_its_setting() -> None:
    config = configure(
        "-p 5000 -L ::1 -b 7 -j 3 -R -w 2 --exceptions --job-handle-prefix H:x --keepalive --keepalive-idle 1 "
        "--keepalive-interval 2 --keepalive-count=-1 -P p -l none --verbose DEBUG -u nobody -f 99"
    )
    assert config.listen == ("[::1]:5000",)
    assert (config.backlog, config.job_retries, config.round_robin, config.worker_wakeup) == (7, 3, True, 2)
    assert (config.exceptions, config.handle_prefix) == (True, "H:x")
    assert (config.keepalive, config.keepalive_idle_seconds, config.keepalive_interval_seconds) == (True, 1, 2)
    assert config.keepalive_count == 0
    assert (config.pid_file, config.log_file, config.log_level) == ("p", "none", "DEBUG")
    assert (config.user, config.file_descriptors) == ("nobody", 99)


def test_port_comes_from_option_then_environment_then_services() -> None:
    assert configure("", GEARMAND_PORT="5001").listen[0] == "0.0.0.0:5001"
    assert configure("-p 5002", GEARMAND_PORT="5001").listen[0] == "0.0.0.0:5002"
    assert configure("-p http").listen[0] == "0.0.0.0:80"


def test_command_line_wins_over_environment_and_that_over_gearmands_defaults() -> None:
    assert configure("", POSTGEAR_LISTEN="127.0.0.1:9", POSTGEAR_BACKLOG="5").listen == ("127.0.0.1:9",)
    config = configure("-p 1 -L h -l stderr", POSTGEAR_LISTEN="127.0.0.1:9", POSTGEAR_LOG_FILE="f")
    assert (config.listen, config.log_file) == (("h:1",), None)


def test_configuration_files_add_what_the_command_line_leaves_open() -> None:
    config = configure("--config-file=simple.conf -p 1")
    assert (config.listen[0], config.log_level, config.round_robin) == ("0.0.0.0:1", "INFO", True)
    assert configure("@simple.conf").listen[0] == "0.0.0.0:5999"
    with pytest.raises(ConfigError, match="Could not open configuration file"):
        configure("@nowhere.conf")


@pytest.mark.parametrize(
    ("line", "environ", "dsn"),
    [
        ("", {}, None),
        ("", {"POSTGEAR_DSN": "host=e"}, "host=e"),
        ("", {"PGHOST": "e"}, ""),
        ("-q Postgres", {}, ""),
        ("-q postgres", {"POSTGEAR_DSN": "host=e"}, "host=e"),
        ("-q Postgres --libpq-conninfo=host=c", {"POSTGEAR_DSN": "host=e"}, "host=c"),
        ("-q builtin --libpq-conninfo=host=c", {}, None),
        ("-q Postgres --libpq-conninfo=host=c --dsn host=d", {}, "host=d"),
    ],
)
def test_database_comes_from(line: str, environ: dict[str, str], dsn: str | None) -> None:
    assert configure(line, **environ).dsn == dsn


def test_options_without_a_meaning_are_listed_once() -> None:
    line = "-t 8 --syslog --hashtable-buckets 5 --mysql-host h -q libsqlite3 --libsqlite3-db f --libpq-conninfo x -R"
    given = gearmand.read_options(line.split(), "none.conf")
    assert gearmand.ignored_options(given) == [
        "--hashtable-buckets",
        "--syslog",
        "--threads",
        "--libsqlite3-db",
        "--mysql-host",
        "--queue-type",
        "--libpq-conninfo",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--ssl", "--ssl: there is no TLS here, and plaintext is not what was asked for"),
        ("-q nope", "Error while initializing the queue : nope"),
        ("-r nope", "Unknown protocol module : nope"),
    ],
)
def test_refused_at_start(line: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert gearmand.main([*line.split(), "-l", "none"]) == 1
    assert capfd.readouterr().err == f"gearmand: {message}\n"


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert gearmand.main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("\ngearmand 1.1.20 (postgear ")
    assert gearmand.main(["--help"]) == 0
    assert "-w [ --worker-wakeup ] arg (=0)" in capfd.readouterr().out
