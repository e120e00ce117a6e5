#!/usr/bin/env python3
"""Write the extension's script, ``postgear--VERSION.sql``, and the upgrade scripts to it.

    python pg_extension/build.py            write them
    python pg_extension/build.py --check    say whether they are up to date; exit code 1 if not

The script is made of ``functions/*.sql`` here (what needs PL/Python), ``sql/functions/gman_*.sql`` (what does not) and
``sql/gman_rights.sql``; the modules of the Gearman client are put into ``gman_runtime``. Everything in it is `create or
replace`, so the same text, after ``upgrades/OLD.sql`` has dropped what changed its signature, upgrades an older version.

To release a version: add the old one to OLD_VERSIONS, with ``upgrades/OLD.sql`` (empty if nothing goes away); set
``default_version`` in ``postgear.control``; build. Scripts of released versions stay as they are.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
OLD_VERSIONS: tuple[str, ...] = ()
MODULES = (
    "errors",
    "wire/__init__",
    "wire/packet",
    "wire/connection",
    "client/__init__",
    "client/operations",
    "client/jobs",
    "client/calls",
    "client/links",
    "client/backend",
)
"""The modules that are embedded, each after those it imports."""


def main() -> int:
    """Write or check the scripts; return the exit code."""
    stale = []
    for path, text in scripts().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in sys.argv[1:]:
            stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    for name in stale:
        print(f"pg_extension/{name} is out of date: run pg_extension/build.py", file=sys.stderr)
    return 1 if stale else 0


def scripts() -> dict[Path, str]:
    """Return the text of each script by its path."""
    version = default_version()
    return {
        HERE / f"postgear--{version}.sql": guard("CREATE EXTENSION postgear") + full_script(),
        **{
            HERE / f"postgear--{old}--{version}.sql": upgrade_script(
                version, (HERE / "upgrades" / f"{old}.sql").read_text(encoding="utf-8")
            )
            for old in OLD_VERSIONS
        },
    }


def upgrade_script(version: str, drops: str) -> str:
    """Return the script that upgrades to *version*: *drops*, which takes away what is gone, then all functions."""
    return guard(f"ALTER EXTENSION postgear UPDATE TO '{version}'") + drops + full_script()


def default_version() -> str:
    """Return the version that the control file names."""
    found = re.search(r"^default_version = '([0-9.]+)'$", (HERE / "postgear.control").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def full_script() -> str:
    """Return all functions: first what needs PL/Python, for the aggregate's definition looks for its parts."""
    runtime = (HERE / "functions" / "gman_runtime.sql").read_text(encoding="utf-8")
    modules = embedded_modules()
    digest = hashlib.sha256((runtime + modules).encode()).hexdigest()[:12]
    # Another name for other contents: a session that has loaded the old ones loads the new ones, too.
    parts = [runtime.replace("@modules@", modules), *texts(HERE / "functions", "gman_internal.sql")]
    parts += [*texts(ROOT / "sql" / "functions", "gman_*.sql"), *texts(ROOT / "sql", "gman_rights.sql")]
    return "\n".join(parts).replace("@runtime@", f"gman {digest}")


def embedded_modules() -> str:
    """Return the modules as a Python list: name, whether it is a package, source."""
    entries = [("", True, "")]
    for path in MODULES:
        source = (ROOT / "server" / "postgear" / f"{path}.py").read_text(encoding="utf-8")
        name = path.replace("/__init__", "")
        entries.append((name.replace("/", "."), name != path, source))
    lines = []
    for name, is_package, source in entries:
        if "'''" in source or source.endswith("\\") or "$runtime$" in source or "@extschema@" in source:
            raise SystemExit(f"{name}: this source cannot stand in a literal of three quotes")
        if not source.isascii():
            raise SystemExit(f"{name}: the script is for databases of any encoding, so this source must be ASCII")
        lines.append(f"({name!r}, {is_package}, r'''{source}'''),\n")
    return "[\n" + "".join(lines) + "]"


def texts(folder: Path, pattern: str) -> list[str]:
    """Return the texts of the files, in the order of their names."""
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob(pattern))]


def guard(command: str) -> str:
    """Return the first lines of a script: what it is, and what psql says if it is given the file."""
    return (
        "-- Made by pg_extension/build.py from sql/functions/gman_*.sql, pg_extension/functions/ and server/postgear/.\n"
        f'\\echo Use "{command}" to load this file. \\quit\n\n'
    )


if __name__ == "__main__":
    sys.exit(main())
