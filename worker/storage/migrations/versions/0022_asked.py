"""When the request was sent that decided last whether a photo is in the index: what comes late changes nothing.

Revision ID: 0022
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("entries", sa.Column("asked_ms", sa.BigInteger), schema=context.config.attributes["schema"])


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
