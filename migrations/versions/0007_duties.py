"""When each lease last did what each does for all.

Revision ID: 0007
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        alter table postgear.server add column duties_at timestamptz;
        comment on column postgear.server.duties_at is
            'Until when the holder has done its duties: ended the leases of the dead, queued the scheduled jobs that were due. '
            'As of the last renewal; null: it has not told.';

        -- It gets a parameter more. Servers of the release before call it with two, which the new one takes, too.
        drop function if exists postgear.renew_lease(bigint, boolean);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop function if exists postgear.renew_lease(bigint, boolean, double precision);
        alter table postgear.server drop column duties_at;
        """
    )
