"""postgear: a Gearman job server whose queue lives in PostgreSQL tables.

Not a client library for other servers' queues and not an ORM: it takes Gearman packets and rows, and gives jobs to workers.
"""

__version__ = "0.1.0"
