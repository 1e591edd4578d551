"""With which camera photos were taken, and when: one burst is one witness.

NULL where nobody has looked since there are these columns: such pictures count as not looked at.

Revision ID: 0017
"""

from alembic import context, op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    ALTER TABLE "{schema}".pictures
        ADD COLUMN camera bytea,
        ADD COLUMN taken_s double precision""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
