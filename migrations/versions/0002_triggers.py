"""Triggers made by postgear.create_trigger; coalescing with queued jobs only.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        alter table postgear.job
            add column until_claimed boolean not null default false,
            add column trigger_id integer;
        comment on column postgear.job.unique_key is
            'The coalescing key: the unique; for the unique "-" the 65 bytes "-" and SHA-512 of the workload; '
            'with until_claimed the 65 bytes "t" and SHA-512 of the key.';
        comment on column postgear.job.until_claimed is
            'The key is for queued jobs only: it becomes null when the job is claimed, so that a change made while the job runs '
            'gets a job of its own.';
        comment on column postgear.job.trigger_id is 'The row of postgear.trigger whose trigger queued the job.';

        create table postgear.trigger (
            id              integer generated always as identity primary key,
            relation        regclass not null,
            name            text not null,
            routine         text not null,
            function        text not null,
            events          text[] not null,
            level           text not null check (level in ('statement', 'row')),
            condition       text,
            columns         text[],
            payload         text not null check (payload in ('row', 'change', 'key', 'columns')),
            payload_columns text[],
            priority        text not null check (priority in ('high', 'normal', 'low')),
            delay           interval,
            key             text[],
            enable          text not null check (enable in ('origin', 'replica', 'always')),
            created_at      timestamptz not null default now(),
            constraint trigger_name_key unique (relation, name)
        );
        comment on table postgear.trigger is
            'What postgear.create_trigger was asked for. The trigger itself is in PostgreSQL''s catalog; see postgear.triggers.';
        comment on column postgear.trigger.routine is 'The trigger function, in schema postgear_trigger.';

        create schema postgear_trigger;
        comment on schema postgear_trigger is
            'The functions that postgear.create_trigger makes. Not schema postgear: who may create functions there could '
            'put one in the way of those that run with the rights of the queue''s owner.';
        """
    )


def downgrade() -> None:
    op.execute(
        """
        do $$
        declare
            installed record;
        begin
            for installed in
                select tgname, tgrelid::regclass as relation
                from pg_trigger
                join pg_proc on pg_proc.oid = tgfoid
                where pronamespace = 'postgear_trigger'::regnamespace and tgparentid = 0
            loop
                execute format('drop trigger %I on %s', installed.tgname, installed.relation);
            end loop;
            for installed in
                select oid::regprocedure as routine from pg_proc
                where pronamespace = 'postgear'::regnamespace
                  and proname ~ '^(trigger_|(create|drop)_trigger|submit_coalesced)'
            loop
                execute format('drop routine %s', installed.routine);
            end loop;
        end
        $$;
        drop schema postgear_trigger cascade;
        drop view if exists postgear.triggers, postgear.jobs;
        drop table postgear.trigger cascade;
        update postgear.job set unique_key = null where until_claimed;
        alter table postgear.job
            drop column until_claimed,
            drop column trigger_id;
        comment on column postgear.job.unique_key is
            'The coalescing key: the unique, or for the unique "-" the 65 bytes "-" and SHA-512 of the workload.';
        """
    )
