"""The worker that MODULE:APP names: imported, found, and clearly told when it cannot be.

MODULE is a dotted name, looked for in the current folder first, or a file (``jobs/worker.py``). APP is the worker's name in it;
left out, it is the only worker there.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType

from postgear.errors import ConfigError

from .core import WorkerCore

is_importing = False
"""Whether ``load`` is importing the module: nothing may run the worker meanwhile."""


def load(app: str) -> WorkerCore:
    """Import the module and return the worker. Raises ConfigError, with the traceback of what the module raised as its text."""
    module_name, name = split(app)
    module = _import(module_name)
    workers = {key: value for key, value in vars(module).items() if isinstance(value, WorkerCore)}
    if not name:
        if len({id(worker) for worker in workers.values()}) != 1:
            raise ConfigError(f"{app}: write {module_name}:NAME; the workers there are: {_listed(workers)}")
        return next(iter(workers.values()))
    found = getattr(module, name, None)
    if found is None and name not in vars(module):
        raise ConfigError(f"{app}: there is no {name} in {module_name}; the workers there are: {_listed(workers)}")
    if not isinstance(found, WorkerCore):
        raise ConfigError(f"{app}: that is no worker, but of type {type(found).__name__}; workers there are: {_listed(workers)}")
    return found


def split(app: str) -> tuple[str, str]:
    """Return MODULE and APP; the latter may be empty."""
    module_name, colon, name = app.rpartition(":")
    return (module_name, name) if colon else (app, "")


def name_of(worker: WorkerCore) -> str:
    """Return the MODULE:APP under which other processes can find a worker. Raises ConfigError if no module has it."""
    main = sys.modules["__main__"]
    for module in [*(each for each in list(sys.modules.values()) if each is not main), main]:
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is not worker:
                continue
            if module is not main:
                return f"{module.__name__}:{name}"
            if main.__spec__ is not None:  # python -m
                return f"{main.__spec__.name}:{name}"
            if main.__file__ is not None:
                return f"{Path(main.__file__).resolve()}:{name}"
    raise ConfigError("several processes need a worker that is a name of a module, so that each can import it")


def _import(module_name: str) -> ModuleType:
    if module_name.endswith(".py"):
        path = Path(module_name).resolve()
        if not path.is_file():
            raise ConfigError(f"there is no file {module_name}")
        folder, wanted = str(path.parent), path.stem
    else:
        folder, wanted = os.getcwd(), module_name
    global is_importing
    sys.path.insert(0, folder)
    is_importing = True
    try:
        module = importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name is not None and (wanted == error.name or wanted.startswith(f"{error.name}.")):
            raise ConfigError(f"there is no module {wanted}; looked in {folder} and where Python looks") from None
        raise ConfigError(_told(module_name, error)) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(_told(module_name, error)) from None
    finally:
        is_importing = False
    if module_name.endswith(".py") and Path(module.__file__ or "").resolve() != Path(module_name).resolve():
        raise ConfigError(f"{module_name}: another module has the name {wanted}, from {module.__file__}; rename the file")
    return module


def _told(module_name: str, error: BaseException) -> str:
    """Return the traceback of an import, without what is between here and the module."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and (trace.tb_frame.f_code.co_filename in (__file__, importlib.__file__) or _is_import(trace)):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    return f"{module_name} cannot be imported:\n{text}"


def _is_import(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")


def _listed(workers: Mapping[str, object]) -> str:
    return ", ".join(sorted(workers)) or "none"
