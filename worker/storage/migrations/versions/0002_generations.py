"""What a generation is and how good it was measured to be; rolling back; purging.

Revision ID: 0002
"""

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    statements = f"""
    ALTER TABLE "{schema}".generations
        ADD COLUMN kind text,
        ADD COLUMN parameters jsonb,
        ADD COLUMN recall_at_10 double precision,
        ADD COLUMN index_bytes bigint,
        ADD COLUMN withdrawn_at timestamptz;
    CREATE TABLE "{schema}".purges (
        photo_id bigint PRIMARY KEY,
        seq bigint NOT NULL,
        asked_at timestamptz NOT NULL DEFAULT now(),
        erased_at timestamptz,
        generation bigint
    )"""
    for statement in statements.split(";"):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
