"""What each generation's own photos taught of evidence, and the figures of the exam.

Generations of releases before have neither: their answers are given without a calibration until the next rebuild.

Revision ID: 0014
"""

from alembic import context, op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    ALTER TABLE "{schema}".generations
        ADD COLUMN learnt jsonb,
        ADD COLUMN exam jsonb""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
