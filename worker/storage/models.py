"""Which model serves, and the chains of messages that fill the next one."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from worker.errors import Transient
from worker.storage.database import Database, interval_of
from worker.storage.log import hold
from worker.storage.tables import embeddings, fillers, serving
from worker.storage.vectors import Vectors


class Models:
    """See worker.core.ports.ServingModel. Every method is a transaction."""

    def __init__(self, database: Database, vectors: Vectors) -> None:
        self._database = database
        self._vectors = vectors

    def serving(self, default: str) -> str:
        """The model whose vectors are searched; `default` where nothing is stored of another one yet."""
        with self._database.begin() as connection:
            found = connection.scalar(select(serving.c.model_key))
            used = select(literal(True)).where(embeddings.c.model_key == found).limit(1)
            if found == default or (found is not None and connection.scalar(used)):
                return str(found)
        # Noted for all, so that workers of two models do not both serve. On a database that takes no writes nobody
        # stores what would matter.
        with suppress(Transient), self._database.begin() as connection:
            row = {"only": True, "model_key": default, "since": func.now()}
            noted = upsert(serving).values(**row)
            connection.execute(
                noted.on_conflict_do_update(index_elements=["only"], set_=row, where=serving.c.model_key == found)
            )
            return str(connection.scalar(select(serving.c.model_key)))
        return default

    def switch(self, model_key: str) -> bool:
        """Let this model's vectors be searched from now on, unless photos lack one. Refused photos do not count.

        Nobody can write meanwhile, so no photo falls between the two models.
        """
        with self._database.begin() as connection:
            hold(connection)
            if self._vectors.count_missing(connection, model_key, refused_too=False):
                return False
            row = {"only": True, "model_key": model_key, "since": func.now()}
            connection.execute(upsert(serving).values(**row).on_conflict_do_update(index_elements=["only"], set_=row))
        return True

    def hold_filler(self, model_key: str, slot: int, lease_s: float, *, new: bool) -> bool:
        """Take (`new`) or prolong one chain of filling messages; False where another one lives."""
        until = func.now() + interval_of(lease_s)
        row = upsert(fillers).values(model_key=model_key, slot=slot, until=until)
        with self._database.begin() as connection:
            taken = connection.execute(
                row.on_conflict_do_update(
                    index_elements=["model_key", "slot"],
                    set_={"until": until},
                    where=fillers.c.until < func.now() if new else None,
                ).returning(fillers.c.slot)
            ).first()
        return taken is not None

    def end_filler(self, model_key: str, slot: int) -> None:
        with self._database.begin() as connection:
            connection.execute(delete(fillers).where(fillers.c.model_key == model_key, fillers.c.slot == slot))
