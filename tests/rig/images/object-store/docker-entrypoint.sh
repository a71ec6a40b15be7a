#!/bin/sh
# `server ...`, `minio server ...` and `silo server ...` all start the server.
case "${1:-}" in
    minio | silo) shift ;;
    server | -* | healthcheck) ;;
    *) exec "$@" ;;
esac
if [ "${1:-}" = healthcheck ]; then
    exec curl -fsS "http://127.0.0.1:9000/minio/health/${2:-live}"
fi
exec /usr/bin/silo "$@"
