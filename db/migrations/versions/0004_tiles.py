"""Pictures that the network sees in tiles: what decided, and what was explained of it.

Nothing recorded is rewritten: the new columns are NULL in old rows, and a NULL column does not enter a row's
digest. They have neither default nor check and touch no row, so the time does not grow with the record.

Revision 0004.
"""

import sqlalchemy as sa
from alembic import op

from db import views
from db.columns import Json
from db.errors import RecordError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COLUMNS = {
    "prediction": {"tile_count": sa.Integer(), "deciding_tile": Json()},
    "explanation": {"tiles": Json(), "tiles_left_out": sa.Integer()},
}


def upgrade() -> None:
    for table, columns in _COLUMNS.items():
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM audit_event")):
        raise RecordError(
            "this database holds a history: kensa does not delete one; remove the database instead"
        )
    views.drop(op.get_bind())
    for table, columns in _COLUMNS.items():
        for name in columns:
            op.drop_column(table, name)
