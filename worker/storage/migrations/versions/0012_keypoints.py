"""Keypoints of pictures, to see whether two show the same place.

They do not compress, so Postgres does not try: what is too long for a row lies beside the table as it is.

Revision ID: 0012
"""

from alembic import context, op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f"""
    CREATE TABLE "{schema}".keypoints (
        content_sha256 text PRIMARY KEY,
        version smallint NOT NULL,
        keypoints bytea NOT NULL
    );
    ALTER TABLE "{schema}".keypoints ALTER COLUMN keypoints SET STORAGE EXTERNAL""")


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
