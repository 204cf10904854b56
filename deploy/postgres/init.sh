# Run once, by PostgreSQL's image, when the database is made: who may do what in it.
#
# rest-api owns its database and is no superuser; the exporter may read statistics and nothing else. The superuser has
# no password afterwards: `docker compose exec postgres psql -U postgres` works, a connection over the network does not.
owner_password=$(cat /run/secrets/postgres_password)
exporter_password=$(cat /run/secrets/postgres_exporter_password)
psql -v ON_ERROR_STOP=1 -q -U "$POSTGRES_USER" -d postgres \
  -v owner_password="$owner_password" -v exporter_password="$exporter_password" <<'SQL'
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
unset owner_password exporter_password
