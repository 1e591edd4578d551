-- Two roles for Sightline: the first owns its tables and runs `sightline migrate`, the second is what services run as.
-- Run it as an administrator in the database of the photos, then give both a password (\password in psql), and
--   SIGHTLINE_DATABASE_URL=postgresql+psycopg2://sightline_owner@host/database sightline migrate --grant sightline_service
CREATE ROLE sightline_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE ROLE sightline_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;

-- The schema of SIGHTLINE_DB_SCHEMA; nobody else makes anything in it.
CREATE SCHEMA sightline AUTHORIZATION sightline_owner;

-- Both look at the backend's table. The owner may hand that on.
GRANT USAGE ON SCHEMA public TO sightline_owner WITH GRANT OPTION;
GRANT SELECT ON public.photos TO sightline_owner WITH GRANT OPTION;

-- Where the service makes rows for photos that come without one, and only then; UPDATE for SIGHTLINE_WRITE_ROWS:
-- GRANT INSERT ON public.photos TO sightline_service;
-- GRANT USAGE ON SEQUENCE public.photos_id_seq TO sightline_service;  -- not for an identity column
