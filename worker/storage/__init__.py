"""Postgres and photo files. The only room that imports a database driver."""
