"""Stock clients and workers with a list of servers: how they are built, run and asked. See ``programs/``."""

from __future__ import annotations

import importlib.util
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
LANGUAGES = ("c", "pl", "php", "py")
_NEEDS = {"pl": ["perl", "-MGearman::Client", "-e1"], "php": ["php", "-r", "exit(extension_loaded('gearman') ? 0 : 1);"]}


def why_not(language: str) -> str | None:
    """Say why programs in a language cannot run here; None: they can."""
    if language == "c":
        return None if shutil.which("gcc") else "gcc is not installed"
    if language == "py":
        return None if importlib.util.find_spec("gearman") else "pygearman is not installed"
    command = _NEEDS[language]
    if not shutil.which(command[0]) or subprocess.run(command, capture_output=True, check=False).returncode:
        return f"{language}: no Gearman library"
    return None


def command(kind: str, language: str, folder: Path) -> list[str]:
    """Return the command line of a client or worker without its arguments; C is built into *folder*."""
    source = PROGRAMS / f"{kind}.{language}"
    if language == "c":
        program = folder / kind
        if not program.exists():
            subprocess.run(["gcc", "-std=gnu99", "-Wall", "-o", program, source, "-lgearman"], check=True)
        return [str(program)]
    return {"pl": ["perl"], "php": ["php"], "py": [sys.executable, "-W", "ignore"]}[language] + [str(source)]


class Client:
    """A client program that goes on: asked by lines, answers by lines."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line.decode(errors="replace").rstrip("\n"))
        self._answers.put("ended")

    def ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, seconds: float = 20.0) -> str:
        """The next answer: "ok RESULT", "error WHY", or "ended" when the program did."""
        return self._answers.get(timeout=seconds)

    def until_ok(self, line: str, seconds: float = 20.0) -> tuple[str, list[str], float]:
        """Ask the same again until it works. Returns the result, the errors before it, and the seconds it took."""
        errors: list[str] = []
        started = time.monotonic()
        while True:
            self.ask(line)
            answer = self.answer(seconds)
            if answer.startswith("ok "):
                return answer.removeprefix("ok "), errors, time.monotonic() - started
            errors.append(answer)
            assert answer != "ended", errors
            assert time.monotonic() < started + seconds, errors

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
