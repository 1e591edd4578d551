"""The recall that each generation promises, beside the mean that was measured.

Revision ID: 0010
"""

from alembic import context, op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'ALTER TABLE "{schema}".generations ADD COLUMN recall_at_10_at_least double precision')


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
