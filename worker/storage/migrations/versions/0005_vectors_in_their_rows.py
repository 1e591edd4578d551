"""Vectors lie in their rows wherever a page has room for two such rows, and beside the table where it has not.

Postgres moves what makes a row longer than 2 kB out of it, into pieces that are found by an index of their own: a
vector of 512 numbers is just above. Of rows with 1024 numbers a page would hold one and be half empty. This setting
holds for rows that are written from now on; those that are there follow in small transactions
(worker.storage.inlining).

Revision ID: 0005
"""

from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    # Half of what a page holds. STORAGE PLAIN would refuse a row that is longer than a page.
    op.execute(f'ALTER TABLE "{schema}".embeddings SET (toast_tuple_target = 4064)')


def downgrade() -> None:
    raise NotImplementedError("go back by restoring the database; the photos table is never altered")
