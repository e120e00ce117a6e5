"""Workers straight on the database: leases that are no server's.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        alter table postgear.server
            add column kind text not null default 'server' check (kind in ('server', 'worker')),
            add column host text,
            add column functions bytea[];
        comment on table postgear.server is
            'A row for each lease: a running server, or a worker straight on the database. '
            'Its life is proved by renewed_at and by an advisory lock on the lease.';
        comment on column postgear.server.host is 'Where a worker runs; null for a server, which has addresses.';
        comment on column postgear.server.functions is 'What a worker can do; null for a server.';

        -- It gets a parameter more. Servers of the release before call it with five, which the new one takes, too.
        drop function if exists postgear.claim_jobs(bigint, integer[], smallint[], integer[], bigint);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop view if exists postgear.workers;
        drop function if exists postgear.claim_jobs(bigint, integer[], smallint[], integer[], bigint, integer);
        drop function if exists postgear.register_worker(text, text, integer, text, double precision, bytea[]);
        drop function if exists postgear.set_functions(bigint, bytea[]);
        drop function if exists postgear.postpone_jobs(bigint, bigint[], double precision[]);
        drop function if exists postgear.complete_job(bigint, bigint, smallint);
        delete from postgear.server where kind = 'worker';
        alter table postgear.server
            drop column kind,
            drop column host,
            drop column functions;
        comment on table postgear.server is
            'A row for each running server: its lease. Its life is proved by renewed_at and by an advisory lock on the lease.';
        """
    )
