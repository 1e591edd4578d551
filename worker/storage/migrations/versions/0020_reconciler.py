"""Photos that lack a vector are sent again by whatever finds that, and files are looked at all day.

Revision ID: 0020
"""

from alembic import context, op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    CREATE TABLE "{schema}".lacking (
        photo_id bigint PRIMARY KEY,
        seen_at timestamptz NOT NULL,
        times integer NOT NULL,
        until timestamptz NOT NULL
    );
    CREATE TABLE "{schema}".reconciled (
        "only" boolean PRIMARY KEY,
        at timestamptz NOT NULL,
        after_id bigint NOT NULL
    )""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
