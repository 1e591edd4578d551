"""Tries are counted by a photo's content and the process that made them.

What was counted by photo ids until now begins anew.

Revision ID: 0019
"""

from alembic import context, op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    DROP TABLE "{schema}".attempts;
    CREATE TABLE "{schema}".attempts (
        content_sha256 text NOT NULL,
        process text NOT NULL,
        begun boolean NOT NULL,
        photo_id bigint,
        path text,
        task_id text,
        signal text,
        error text,
        at timestamptz NOT NULL,
        PRIMARY KEY (content_sha256, process)
    )""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
