"""Run the migrations on the connection that ``postgear.schema`` hands over, inside its transaction; offline, print them.

Not for the ``alembic`` command: ``postgear init`` upgrades, and a new migration is a file written by hand.
"""

from alembic import context

connection = context.config.attributes.get("connection")
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", version_table_schema="postgear", transactional_ddl=False)
elif connection is None:
    raise SystemExit("Run `postgear init`: the migrations take their connection from postgear.schema.")
else:
    context.configure(connection=connection, version_table_schema="postgear")
with context.begin_transaction():
    context.run_migrations()
