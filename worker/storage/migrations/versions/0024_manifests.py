"""The hash of each generation's manifest: who can write its files cannot exchange all of them.

Revision ID: 0024
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("generations", sa.Column("manifest_sha256", sa.Text), schema=context.config.attributes["schema"])


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
