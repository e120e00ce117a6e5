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


def load(app: str) -> WorkerCore:
    """Import the module and return the worker. Raises ConfigError, with the traceback of what the module raised as its text."""
    module_name, _, name = app.partition(":")
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


def _import(module_name: str) -> ModuleType:
    if module_name.endswith(".py"):
        path = Path(module_name).resolve()
        if not path.is_file():
            raise ConfigError(f"there is no file {module_name}")
        folder, wanted = str(path.parent), path.stem
    else:
        folder, wanted = os.getcwd(), module_name
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name is not None and (wanted == error.name or wanted.startswith(f"{error.name}.")):
            raise ConfigError(f"there is no module {wanted}; looked in {folder} and where Python looks") from None
        raise ConfigError(_told(module_name, error)) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(_told(module_name, error)) from None
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
