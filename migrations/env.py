"""Run the migrations on the connection that ``postgear.schema`` hands over, inside its transaction.

Not for the ``alembic`` command: ``postgear init`` upgrades, and a new migration is a file written by hand.
"""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run `postgear init`: the migrations take their connection from postgear.schema.")
context.configure(connection=connection, version_table_schema="postgear")
with context.begin_transaction():
    context.run_migrations()
