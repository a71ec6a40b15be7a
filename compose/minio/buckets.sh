#!/bin/sh
# Makes the buckets through plain S3, so that any S3 service will do. What is there stays; can be run again.
set -eu

# A text for a quoted value of curl's configuration.
escaped() {
    text=$1
    while [ -n "$text" ]; do
        first=${text%"${text#?}"}
        text=${text#?}
        case $first in '"' | '\') printf '\\' ;; esac
        printf '%s' "$first"
    done
}

# Keys, method and address; prints the HTTP status. The login comes by standard input, not on the command line.
request() {
    printf 'user = "%s:%s"\n' "$(escaped "$access_key")" "$(escaped "$secret_key")" |
        curl --silent --show-error --config - --aws-sigv4 "aws:amz:$S3_REGION:s3" --max-time 20 \
            --retry 60 --retry-delay 1 --retry-connrefused --retry-max-time 60 --output /dev/null --write-out '%{http_code}' "$@"
}

make() {
    if [ "$S3_REGION" = us-east-1 ]; then # the one that must not be named
        request --request PUT "$1"
    else # as a file: curl 7 signs it wrongly when it comes by --data
        body=$(mktemp)
        printf '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>%s</LocationConstraint></CreateBucketConfiguration>' \
            "$S3_REGION" >"$body"
        request --upload-file "$body" "$1"
    fi
}

ensure() {
    case $(request --head "$1") in
        200) echo "$1 is there" && return ;;
        403) echo "$1: the login was refused" >&2 && return 1 ;;
    esac
    status=$(make "$1")
    case $status in
        200 | 204 | 409) echo "$1 made" ;;
        *) echo "$1 could not be made: HTTP $status" >&2 && return 1 ;;
    esac
}

access_key=$DATASETS_ACCESS_KEY secret_key=$DATASETS_SECRET_KEY
for bucket in $DATASETS_BUCKETS; do ensure "${DATASETS_ENDPOINT%/}/$bucket"; done
access_key=$RESULTS_ACCESS_KEY secret_key=$RESULTS_SECRET_KEY
for bucket in $RESULTS_BUCKETS; do ensure "${RESULTS_ENDPOINT%/}/$bucket"; done
