#!/bin/sh
# Options alone mean the server; root gives /data to the server's user and goes on as that user.
set -e
case "${1:-}" in
    -* | *.conf) set -- valkey-server "$@" ;;
esac
if [ "$1" = valkey-server ] && [ "$(id -u)" = 0 ]; then
    find . \! -user valkey -exec chown valkey:valkey '{}' +
    exec setpriv --reuid valkey --regid valkey --clear-groups -- "$0" "$@"
fi
# Outside clients may speak to a server without a password, as the container's network decides who can.
if [ "$1" = valkey-server ]; then
    case " $* " in
        *" --protected-mode "*) ;;
        *) set -- "$@" --protected-mode no ;;
    esac
fi
exec "$@"
