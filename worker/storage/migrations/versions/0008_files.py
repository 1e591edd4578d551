"""What each photo's file was like when it was embedded, and whether it is so still.

Revision ID: 0008
"""

from alembic import context, op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    ALTER TABLE "{schema}".entries
        ADD COLUMN file_point text,
        ADD COLUMN file_size bigint,
        ADD COLUMN file_mtime_ns bigint,
        ADD COLUMN file_state text;
    CREATE INDEX entries_file_state ON "{schema}".entries (file_state) WHERE file_state IS NOT NULL""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
