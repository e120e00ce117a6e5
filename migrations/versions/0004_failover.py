"""A record of each lease's last batch of submits, and how safely the jobs of a function are stored.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table postgear.batch (
            lease       bigint primary key,
            number      bigint not null default 0,
            ids         bigint[],
            updated_at  timestamptz not null default now()
        ) with (fillfactor = 20, autovacuum_vacuum_threshold = 1000);
        comment on table postgear.batch is
            'The last batch of submits that each lease has committed, for a server whose commit was not answered.';
        comment on column postgear.batch.ids is
            'As submit_jobs returned them; null: the batch is void. Consecutive ones are {first, null, count}.';
        insert into postgear.batch (lease) select lease from postgear.server;

        alter table postgear.function
            add column durability text not null default 'replicated' check (durability in ('replicated', 'local', 'relaxed'));
        comment on column postgear.function.durability is
            'What an acknowledgement over the wire promises. replicated: on the disk, and at the synchronous standby if there is '
            'one; local: on the disk; relaxed: soon on the disk.';

        -- It gets parameters more. Servers of the release before call it with eight, which the new one takes, too.
        drop function if exists
            postgear.submit_jobs(bigint, integer[], smallint[], bytea[], bytea[], bigint[], bytea[], boolean[]);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop function if exists
            postgear.submit_jobs(bigint, integer[], smallint[], bytea[], bytea[], bigint[], bytea[], boolean[], bigint, text);
        drop function if exists postgear.settle_batch(bigint, bigint);
        drop function if exists postgear.has_sync_standby();
        drop function if exists postgear.standbys();
        drop function if exists postgear.learn_functions(bytea[]);
        drop function if exists postgear.set_durability(bytea, text);
        alter table postgear.function drop column durability;
        drop table postgear.batch;
        """
    )
