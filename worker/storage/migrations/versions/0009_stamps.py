"""What tells a change from another one that bears the same number after a restore.

Revision ID: 0009
"""

from alembic import context, op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    # The default is computed for each row that is there already.
    op.execute(f'ALTER TABLE "{schema}".changes ADD COLUMN stamp uuid NOT NULL DEFAULT gen_random_uuid()')
    # Generations of earlier releases have none in their files either.
    op.execute(f'ALTER TABLE "{schema}".generations ADD COLUMN stamp uuid')


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
