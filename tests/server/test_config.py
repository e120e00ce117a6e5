"""Where settings come from, what they may be, and that the reference page says the same."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgear import config as config_module
from postgear import logs
from postgear.config import Config, hide_password, load
from postgear.config_values import format_address, parse_address, parse_size
from postgear.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_are_what_the_fields_say() -> None:
    config = load({}, {})
    assert config == Config()
    assert config.dsn is None
    assert config.listen == ("127.0.0.1:4730",)
    assert config.max_packet_bytes == 64 * 1024 * 1024
    assert config.job_retries == -1
    assert 0 < len(config.name) <= 40


def test_flags_win_over_environment_over_file_over_given_defaults(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('name = "file"\nbacklog = 2\nworker_wakeup = 2\nlisten = ["127.0.0.1:1", "[::1]:2"]\n')
    environ = {"POSTGEAR_NAME": "environment", "POSTGEAR_BACKLOG": "3"}
    config = load({"name": "flag", "backlog": None}, environ, str(file), defaults={"worker_wakeup": 9, "drain_seconds": 9})
    assert (config.name, config.backlog, config.worker_wakeup, config.drain_seconds) == ("flag", 3, 2, 9.0)
    assert config.listen == ("127.0.0.1:1", "[::1]:2")


def test_file_comes_from_the_environment_or_the_current_folder(tmp_path: Path) -> None:
    Path("postgear.toml").write_text("backlog = 5\n")
    other = tmp_path / "other.toml"
    other.write_text("backlog = 6\n")
    assert load({}, {}).backlog == 5
    assert load({}, {"POSTGEAR_CONFIG": str(other)}).backlog == 6


@pytest.mark.parametrize("variable", ["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"])
def test_libpq_environment_counts_as_an_empty_dsn(variable: str) -> None:
    assert load({}, {variable: "x"}).dsn == ""
    assert load({"dsn": "host=y"}, {variable: "x"}).dsn == "host=y"


def test_foreign_variables_are_left_alone() -> None:
    assert load({}, {"POSTGEAR_PORT": "tcp://10.0.0.1:4730", "POSTGEAR_SERVICE_HOST": "10.0.0.1"}) == Config()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "4730"),
        ("listen", "localhost:99999"),
        ("listen", "::1:4730"),
        ("listen", ""),
        ("name", "two words"),
        ("name", "x" * 41),
        ("name", "é"),
        ("handle_prefix", "x" * 43),
        ("worker_wakeup", "256"),
        ("job_retries", "-2"),
        ("job_retries", "many"),
        ("exceptions", "perhaps"),
        ("max_packet_bytes", "64M"),
        ("max_packet_bytes", "1"),
        ("max_packet_bytes", "4GiB"),
        ("submit_timeout_seconds", "nan"),
        ("submit_timeout_seconds", "-1"),
        ("log_level", "LOUD"),
        ("log_format", "xml"),
        ("data_dir", ""),
        ("pid_file", "a\0b"),
    ],
)
def test_bad_value_is_refused_with_key_source_and_what_is_allowed(key: str, value: str) -> None:
    allowed = Config.__dataclass_fields__[key].metadata["allowed"]
    with pytest.raises(ConfigError) as raised:
        load({}, {f"POSTGEAR_{key.upper()}": value})
    assert str(raised.value) == f"POSTGEAR_{key.upper()}: {value!r} given, must be {allowed}"
    with pytest.raises(ConfigError, match=f"^--{key.replace('_', '-')}: "):
        load({key: value}, {})


@pytest.mark.parametrize(
    "line", ["backlog = true", "backlog = 1.5", "drain_seconds = true", "listen = 4730", "name = 1", "exceptions = 1"]
)
def test_wrong_type_in_file_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(line)
    with pytest.raises(ConfigError, match=f"^{line.split()[0]} in {file}: .* must be "):
        load({}, {}, str(file))


def test_unknown_key_names_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("colour = 1")
    with pytest.raises(ConfigError, match=r"^colour in .*: no such setting; there are dsn, .*listen"):
        load({}, {}, str(file))


def test_mistyped_key_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("lisen = 1")
    with pytest.raises(ConfigError, match=r"^lisen in .*: no such setting; listen\?$"):
        load({}, {}, str(file))


def test_values_are_told_as_people_write_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--listen: '4732' given, must be "):
        load({"listen": ["4732"]}, {})
    file = tmp_path / "settings.toml"
    file.write_text("backlog = true")
    with pytest.raises(ConfigError, match=r"^backlog in .*: true given, must be "):
        load({}, {}, str(file))


@pytest.mark.parametrize("dsn", ["garbage", "hots=db", "postgresql://h:5432/d?colour=red"])
def test_malformed_dsn_is_refused_with_the_reason_and_without_itself(dsn: str) -> None:
    with pytest.raises(ConfigError, match=r"^POSTGEAR_DSN: .*(missing|invalid).*, must be a libpq connection string") as raised:
        load({}, {"POSTGEAR_DSN": dsn + (" " if "//" not in dsn else "&") + "password=geheim"})
    assert "geheim" not in str(raised.value)


def test_unreadable_and_malformed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load({}, {}, "nowhere.toml")
    file = tmp_path / "settings.toml"
    file.write_text("= 1")
    with pytest.raises(ConfigError, match="not TOML"):
        load({}, {}, str(file))


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("1024", 1024), ("64MiB", 67108864), ("1GB", 10**9), ("2 kib", 2048), ("7B", 7), ("3kB", 3000)]
)
def test_sizes_take_units(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "address"), [("h:1", ("h", 1)), ("[::1]:0", ("::1", 0)), ("h", ("h", 4730)), ("[::1]", ("::1", 4730))]
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, 4730) == address
    assert parse_address(format_address(*address)) == address


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:geheim@h:5432/d",
        "postgres://u:ge@heim@h/d",
        "host=h password=geheim user=u",
        r"password = 'geh\'eim x' host=h",
        "postgresql://h/d?password=geheim&user=u",
    ],
)
def test_password_is_hidden(dsn: str) -> None:
    shown = hide_password(dsn)
    assert "eim" not in shown
    assert "***" in shown
    assert "h" in shown


def test_every_setting_is_explained() -> None:
    for each in dataclasses.fields(Config):
        assert each.metadata["help"], each.name
        assert each.metadata["reason"], each.name
        assert each.metadata["allowed"], each.name
        if each.name.endswith(("_seconds", "_bytes")):
            assert each.metadata["unit"] in ("seconds", "bytes")


def test_reference_page_is_printed_by_the_module() -> None:
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == config_module.reference()


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def test_text_log_is_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "text", None)
    log = logging.getLogger("postgear.daemon")
    logs.event(log, logging.INFO, "ready", listen="127.0.0.1:4730", dsn="host=db user=x", jobs=3, graceful=False)
    logs.event(log, logging.DEBUG, "packet")
    logs.event(log, logging.ERROR, "broken", exception=ValueError("two\nlines"))
    first, second = capsys.readouterr().err.splitlines()
    assert first.split("Z ", 1)[1] == 'INFO daemon ready listen=127.0.0.1:4730 dsn="host=db user=x" jobs=3 graceful=false'
    assert r'ERROR daemon broken traceback="ValueError: two\nlines"' in second


def test_json_log_is_one_object_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("NOTICE", "json", None)
    log = logging.getLogger("postgear.store")
    logs.event(log, logging.INFO, "quiet")
    logs.event(log, logs.NOTICE, "lost", handle=b"H:x:1\xff")
    record = json.loads(capsys.readouterr().err)
    assert (record["level"], record["logger"], record["event"]) == ("NOTICE", "postgear.store", "lost")
    assert record["handle"] == "H:x:1\\xff"


def test_log_file_is_opened_anew_after_it_was_moved(tmp_path: Path) -> None:
    file = tmp_path / "log"
    logs.configure("INFO", "text", str(file))
    log = logging.getLogger("postgear.daemon")
    logs.event(log, logging.INFO, "one")
    file.rename(tmp_path / "log.1")
    logs.reopen()
    assert file.read_text() == ""
    logs.event(log, logging.INFO, "two")
    assert "one" in (tmp_path / "log.1").read_text()
    assert "two" in file.read_text()


def test_log_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log_file .*: cannot be opened: No such file"):
        logs.configure("INFO", "text", str(tmp_path / "no" / "log"))
