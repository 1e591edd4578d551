"""What callers say of a photo beside the backend's row, which keeps what it says.

Revision ID: 0006
"""

from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    ALTER TABLE "{schema}".entries
        ADD COLUMN row_point text,
        ADD COLUMN own_address jsonb,
        ADD COLUMN row_address text""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
