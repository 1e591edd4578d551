"""What each generation's exam said beside the baseline, and the baseline of each model.

Generations of releases before have no verdict: the next rebuild's exam is the baseline.

Revision ID: 0016
"""

from alembic import context, op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    ALTER TABLE "{schema}".generations ADD COLUMN verdict jsonb;
    CREATE TABLE "{schema}".exam_baselines (
        model_key text PRIMARY KEY,
        baseline jsonb NOT NULL,
        frozen_at timestamptz NOT NULL
    )""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
