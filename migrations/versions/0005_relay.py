"""The relay: where each outbox's rows are on their way into the queue; what was imported from gearmand.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table postgear.relay (
            id              integer generated always as identity primary key,
            source          text not null,
            outbox          text not null,
            generation      bigint not null default 0,
            holder          text,
            lease_seconds   double precision not null default 15,
            renewed_at      timestamptz not null default now(),
            batch           bigint not null default 0,
            settled         bigint not null default 0,
            rows_moved      bigint not null default 0,
            rows_failed     bigint not null default 0,
            rows_waiting    bigint,
            oldest_at       timestamptz,
            looked_at       timestamptz not null default now(),
            is_failing      boolean not null default false,
            rows_per_second double precision,
            error           text,
            error_at        timestamptz,
            constraint relay_source_key unique (source)
        ) with (fillfactor = 50);
        comment on table postgear.relay is 'A row for each outbox in MariaDB or MySQL whose rows a relay moves into the queue.';
        comment on column postgear.relay.source is 'The identity that the outbox has in its own database.';
        comment on column postgear.relay.generation is
            'The fencing token: it grows when another relay takes over, and each batch names it.';
        comment on column postgear.relay.batch is 'The number of the last batch stored.';
        comment on column postgear.relay.settled is 'The rows of batches up to this one are known to be deleted from the outbox.';
        comment on column postgear.relay.oldest_at is
            'When the oldest row in the outbox was made, as seen last, by this database''s clock; null: there was none.';
        comment on column postgear.relay.looked_at is 'When the outbox was last read.';
        comment on column postgear.relay.is_failing is 'The relay lives but cannot read the outbox.';
        comment on column postgear.relay.error is 'The last error: a row that was set aside, a lost connection.';

        create table postgear.relayed (
            relay_id        integer not null,
            batch           bigint not null,
            low_id          bigint not null,
            high_id         bigint not null,
            row_ids         bigint[] not null,
            row_times       bigint[] not null,
            stored_at       timestamptz not null default now(),
            primary key (relay_id, batch)
        );
        comment on table postgear.relayed is
            'Which rows of an outbox each batch stored, in the same transaction: until they are known to be deleted, and a '
            'minute longer, for deletions that the other database forgets (commits that are not durable, a replica that lags).';
        comment on column postgear.relayed.row_times is
            'created_at of each row in microseconds: an id alone could be that of another row after a TRUNCATE.';

        create table postgear.imported (
            digest      bytea primary key,
            imported_at timestamptz not null default now(),
            deletes     boolean not null
        );
        comment on table postgear.imported is
            'SHA-256 of each row of gearmand''s queue table that was imported and may still be there: not to import it twice.';
        comment on column postgear.imported.deletes is
            'The run meant to delete the row next; else it stays, and nothing tells it from the same job queued anew.';
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop view if exists postgear.relays;
        drop function if exists postgear.register_relay(text, text, text, double precision);
        drop function if exists postgear.relay_jobs(
            integer, bigint, bigint, bigint[], bigint[], bytea[], bytea[], bytea[], smallint[], bigint[], boolean[]
        );
        drop function if exists postgear.report_relay(
            integer, bigint, bigint, bigint, bigint, double precision, double precision, text
        );
        drop function if exists postgear.import_jobs(bytea[], bytea[], bytea[], bytea[], smallint[], bigint[], boolean);
        drop function if exists postgear.submit_jobs_unlocked(
            bigint, integer[], smallint[], bytea[], bytea[], bigint[], bytea[], boolean[], bigint, text
        );
        drop table postgear.relayed, postgear.relay, postgear.imported;
        """
    )
