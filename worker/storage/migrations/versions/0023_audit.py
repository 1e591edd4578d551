"""Who has asked where photos were taken.

Revision ID: 0023
"""

from alembic import context, op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    CREATE TABLE "{schema}".audit (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL,
        until timestamptz NOT NULL,
        producer text NOT NULL,
        verb text NOT NULL,
        task_id text,
        content_sha256 text,
        photo_id bigint,
        answer text NOT NULL,
        lat double precision,
        lon double precision,
        radius_m double precision,
        told bigint[] NOT NULL
    );
    CREATE INDEX audit_at ON "{schema}".audit (at);
    CREATE INDEX audit_until ON "{schema}".audit (until);
    CREATE INDEX audit_content ON "{schema}".audit (content_sha256 text_pattern_ops);
    CREATE INDEX audit_photo ON "{schema}".audit (photo_id);
    CREATE INDEX audit_told ON "{schema}".audit USING gin (told)""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
