#!/bin/bash
# Makes the data directory on the first start and runs /docker-entrypoint-initdb.d, then becomes the server.
set -eo pipefail

# NAME or, from a file, NAME_FILE.
setting() {
    local file="${1}_FILE"
    if [ -n "${!file:-}" ]; then
        [ -z "${!1:-}" ] || { echo "error: both $1 and $file are set" >&2; exit 1; }
        export "$1"="$(< "${!file}")"
    else
        export "$1"="${!1:-${2:-}}"
    fi
    unset "$file"
}

make_database_cluster() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        echo "       You must specify POSTGRES_PASSWORD to a non-empty value for the superuser." >&2
        exit 1
    fi
    if [ -d /var/lib/postgresql/data ] && [ -e /var/lib/postgresql/data/PG_VERSION ]; then
        echo "Error: in 18+ the data lives in $PGDATA; there is data of an older version in /var/lib/postgresql/data" >&2
        exit 1
    fi
    initdb --locale-provider=builtin --locale=C.UTF-8 --encoding=UTF8 --username="$POSTGRES_USER" \
        --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") ${POSTGRES_INITDB_ARGS:-} -D "$PGDATA"
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
    PGPASSWORD="$POSTGRES_PASSWORD" pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
    [ "$POSTGRES_DB" = postgres ] || query --dbname postgres --set db="$POSTGRES_DB" <<< 'CREATE DATABASE :"db";'
    run_scripts
    pg_ctl -D "$PGDATA" -m fast -w stop
    echo "PostgreSQL init process complete; ready for start up."
}

query() {
    psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"
}

run_scripts() {
    local file
    export PGPASSWORD="$POSTGRES_PASSWORD"
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
            *.sql) query --dbname "$POSTGRES_DB" -f "$file" ;;
            *.sql.gz) gunzip -c "$file" | query --dbname "$POSTGRES_DB" ;;
        esac
    done
    unset PGPASSWORD
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" != postgres ]; then exec "$@"; fi

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 00700 "$PGDATA" || :
    chmod 03775 /var/run/postgresql || :
    find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
    find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    exec setpriv --reuid postgres --regid postgres --clear-groups -- "$0" "$@"
fi

mkdir -p "$PGDATA"
setting POSTGRES_PASSWORD
setting POSTGRES_USER postgres
setting POSTGRES_DB "$POSTGRES_USER"
[ -s "$PGDATA/PG_VERSION" ] || make_database_cluster
exec "$@"
