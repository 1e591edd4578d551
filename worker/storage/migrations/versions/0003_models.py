"""Which model serves, and the filling of the next one.

Revision ID: 0003
"""

from alembic import context, op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    statements = f"""
    ALTER TABLE "{schema}".changes ADD COLUMN model_key text;
    CREATE TABLE "{schema}".serving (
        "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
        model_key text NOT NULL,
        since timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE "{schema}".fillers (
        model_key text NOT NULL,
        slot integer NOT NULL,
        until timestamptz NOT NULL,
        PRIMARY KEY (model_key, slot)
    )"""
    for statement in statements.split(";"):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
