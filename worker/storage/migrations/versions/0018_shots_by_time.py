"""What a camera took within minutes is looked up by its digest and the time.

Digests said nothing of whether they are of one camera or of all of a model: such pictures are looked at again.

Revision ID: 0018
"""

from alembic import context, op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""UPDATE "{schema}".pictures SET camera = NULL, taken_s = NULL WHERE taken_s IS NOT NULL""")
    op.execute(f"""CREATE INDEX pictures_shots ON "{schema}".pictures (camera, taken_s) WHERE taken_s IS NOT NULL""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
