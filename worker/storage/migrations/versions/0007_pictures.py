"""What pictures look like, to know copies.

Revision ID: 0007
"""

from alembic import context, op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'CREATE TABLE "{schema}".pictures (content_sha256 text PRIMARY KEY, hash bytea NOT NULL)')


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
