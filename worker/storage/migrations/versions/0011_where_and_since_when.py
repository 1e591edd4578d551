"""Where each photo's position comes from, and since when its file has changed or is gone.

Of what is stored already it is not known which file a position was read from, nor since when a file is as it is: that
stays open until the photo is stored, or its file looked at, again.

Revision ID: 0011
"""

from alembic import context, op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    ALTER TABLE "{schema}".entries
        ADD COLUMN position_from text,
        ADD COLUMN file_state_at timestamptz;
    UPDATE "{schema}".entries SET position_from = CASE WHEN row_point IS NULL THEN 'row' ELSE 'given' END
        WHERE lat IS NOT NULL AND NOT from_exif AND file_point IS NULL""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
