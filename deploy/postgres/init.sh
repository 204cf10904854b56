# Run once, by PostgreSQL's image, when the database is made: who may do what in it.
#
# rest-api owns its database and is no superuser; the exporter may read statistics and nothing else. The superuser has
# no password afterwards: `docker compose exec postgres psql -U postgres` works, a connection over the network does not.
#
# The passwords are read by psql itself, so that no list of processes shows them, and statements that hold them are kept
# out of the log and of the statistics, which the exporter may read.
psql -v ON_ERROR_STOP=1 -q -U "$POSTGRES_USER" -d postgres <<'SQL'
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET pg_stat_statements.track = 'none';
\set owner_password `cat /run/secrets/postgres_password`
\set exporter_password `cat /run/secrets/postgres_exporter_password`
CREATE ROLE devops_mcp LOGIN PASSWORD :'owner_password';
CREATE DATABASE devops_mcp OWNER devops_mcp;
CREATE ROLE monitoring LOGIN PASSWORD :'exporter_password' CONNECTION LIMIT 5 IN ROLE pg_monitor;
ALTER ROLE monitoring SET search_path = public, pg_catalog;
\connect devops_mcp
CREATE EXTENSION pg_stat_statements;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO devops_mcp;
GRANT USAGE ON SCHEMA public TO monitoring;
ALTER ROLE postgres PASSWORD NULL;
SQL
