"""Alembic migrations of Sightline's own schema; `sightline migrate` runs them."""
