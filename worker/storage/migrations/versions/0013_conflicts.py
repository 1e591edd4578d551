"""What speaks against photos' positions, and what people have said of it.

Revision ID: 0013
"""

from alembic import context, op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    CREATE TABLE "{schema}".conflicts (
        photo_id bigint PRIMARY KEY,
        content_sha256 text NOT NULL,
        lat double precision NOT NULL,
        lon double precision NOT NULL,
        doubt text NOT NULL,
        mistake text,
        other_ids bigint[] NOT NULL,
        other_lat double precision,
        other_lon double precision,
        state text NOT NULL,
        model_key text,
        found_at timestamptz NOT NULL,
        settled_at timestamptz
    );
    CREATE TABLE "{schema}".examined (model_key text PRIMARY KEY, after_id bigint NOT NULL)""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
