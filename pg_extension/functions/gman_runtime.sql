create or replace function gman_runtime() returns boolean
language plpython3u
as $runtime$
# Internal: load the Gearman client into this session, as GD["@runtime@"].
#
# Its modules are those of the Python package postgear, written here by build.py; they get a package name of their own,
# so that they meet no postgear installed for this Python. PL/Python puts a tab before each line, also in literals.
import sys
import types

MODULES = @modules@

ROOT = "@runtime@".replace(" ", "_")
for name, is_package, source in MODULES:
    module = types.ModuleType((ROOT + "." + name).rstrip("."))
    module.__package__ = module.__name__ if is_package else module.__name__.rpartition(".")[0]
    if is_package:
        module.__path__ = []
    sys.modules[module.__name__] = module
    exec(compile(source.replace("\n\t", "\n"), "<postgear " + name + ">", "exec"), module.__dict__)
GD["@runtime@"] = sys.modules[ROOT + ".client.backend"].Backend(plpy)
return True
$runtime$;
comment on function gman_runtime() is 'postgear: internal, loads the Gearman client into the session';
