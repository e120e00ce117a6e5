"""postgear measured against gearmand: same machine, same load programs, taking turns. `python -m bench --help`."""
