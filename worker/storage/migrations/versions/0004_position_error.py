"""How wrong a photo's position may be, by its camera.

Revision ID: 0004
"""

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'ALTER TABLE "{schema}".entries ADD COLUMN position_error_m double precision')


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
