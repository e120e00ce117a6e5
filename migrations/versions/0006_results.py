"""Results of background jobs, kept for a time where a function asks for it.

Revision ID: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        alter table postgear.function
            add column keep_results interval
            check (keep_results > interval '0' and keep_results <= interval '100 years');
        comment on column postgear.function.keep_results is
            'How long the results of its background jobs are kept; null: not at all.';

        create table postgear.result (
            job_id      bigint primary key,
            function_id integer not null,
            outcome     text not null check (outcome in ('completed', 'failed')),
            result      bytea,
            finished_at timestamptz not null,
            expires_at  timestamptz not null
        ) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
        create index result_expires_idx on postgear.result (expires_at);
        comment on table postgear.result is
            'How the background jobs of functions that keep results have ended. A row is made as that of the job is deleted.';
        comment on column postgear.result.result is
            'What its worker sent with WORK_COMPLETE or WORK_EXCEPTION; null: nothing, as with WORK_FAIL, or too much.';
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop function if exists postgear.keep_results(bytea, interval);
        drop function if exists postgear.finish_with_results(bigint, bigint[], boolean[], bytea[], smallint);
        drop function if exists postgear.expire_results();
        drop function if exists postgear.handle_result(text);
        alter table postgear.function drop column keep_results;
        drop table postgear.result;
        """
    )
