#!/usr/bin/env bash
# A machine that may be taken away at any time, its shards and its run in a bucket. Have the machine
# run this at every start; a new one goes on where the last one was.
#   bash docs/launch/spot.sh [--any.leaf VALUE ...]
#
# The shards are copied to the local disk first: training reads files, no buckets.
set -euo pipefail

# Change these, or set them in the environment.
PYTHON=${PYTHON:-.venv/bin/python}
CONFIG=${CONFIG:-configs/pretrain/ss_mast_mast.yaml}
BUCKET_SHARDS=${BUCKET_SHARDS:-s3://my-bucket/shards/mine}   # s3://, gs://, or a remote of rclone
BUCKET_RUN=${BUCKET_RUN:-s3://my-bucket/runs/mine}
SHARDS=${SHARDS:-shards/mine}
RUN=${RUN:-runs/mine}
FIRST=${FIRST:-no}                  # yes: a run that cannot be read is none yet, and one is started
SYNC_SECONDS=${SYNC_SECONDS:-300}   # between two copies of the run into the bucket
NOTICE=${NOTICE:-none}              # who tells that the machine goes: aws, gcp; none: SIGTERM alone

copy() { # FROM TO: what is there already and the same stays
    case "$1 $2" in
        *s3://*) aws s3 sync --only-show-errors "$1" "$2" ;;
        *gs://*) gcloud storage rsync --recursive "$1" "$2" ;;
        *) rclone copy "$1" "$2" ;;
    esac
}

mirror() { # FROM TO: the same, and what FROM lacks goes from TO
    case "$1 $2" in
        *s3://*) aws s3 sync --only-show-errors --delete "$1" "$2" ;;
        *gs://*) gcloud storage rsync --recursive --delete-unmatched-destination-objects "$1" "$2" ;;
        *) rclone sync "$1" "$2" ;;
    esac
}

# Copies a picture of the run, made of hard links, so that the training need not wait. The state.json
# of a checkpoint comes last: one without it is half a checkpoint.
publish() {
    local picture=$RUN.picture first=$RUN.first status=0
    rm -rf "$picture" "$first"
    cp -al "$RUN" "$picture" 2>/dev/null || true # what vanished meanwhile was an old checkpoint
    rm -rf "$picture"/.lock "$picture"/.*.partial "$picture"/checkpoints/.[!.]*
    drop_halves "$picture"
    for name in recipe.yaml config.json; do # without them the rest is no run
        mkdir -p "$first"
        [[ ! -e $picture/$name ]] || cp "$picture/$name" "$first/$name"
        copy "$first" "$BUCKET_RUN" || status=1
    done
    rm -rf "$first"
    cp -al "$picture" "$first"
    rm -f "$first"/checkpoints/*/state.json
    copy "$first" "$BUCKET_RUN" && mirror "$picture" "$BUCKET_RUN" || status=1
    rm -rf "$picture" "$first"
    return $status
}

fetch() {
    mkdir -p "$SHARDS"
    copy "$BUCKET_SHARDS" "$SHARDS"
    [[ -e $RUN/recipe.yaml ]] && return # this disk outlived the machine
    rm -rf "$RUN.fetched"
    mkdir -p "$RUN.fetched"
    # What cannot be read is no sign that nothing is there: a new run would take its place.
    if ! copy "$BUCKET_RUN" "$RUN.fetched" && [[ $FIRST != yes ]]; then
        echo "spot.sh: cannot read $BUCKET_RUN; if there is no run in it yet, set FIRST=yes" >&2
        exit 1
    fi
    drop_halves "$RUN.fetched"
    rm -rf "$RUN"
    mv "$RUN.fetched" "$RUN"
}

drop_halves() { # FOLDER OF A RUN
    local checkpoint
    for checkpoint in "$1"/checkpoints/step-*; do
        [[ ! -e $checkpoint || -e $checkpoint/state.json ]] || rm -rf "$checkpoint"
    done
}

going() { # whether the cloud says that this machine is about to go
    local token
    case $NOTICE in
        aws)
            token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" \
                http://169.254.169.254/latest/api/token) || return 1
            curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" \
                http://169.254.169.254/latest/meta-data/spot/instance-action >/dev/null
            ;;
        gcp)
            [[ $(curl -sf -m 2 -H "Metadata-Flavor: Google" \
                http://metadata.google.internal/computeMetadata/v1/instance/preempted) == TRUE ]]
            ;;
        *) return 1 ;;
    esac
}

taken=false
training=
leave() {
    taken=true
    [[ -z $training ]] || kill -TERM "$training" 2>/dev/null || true
}
trap leave TERM INT

fetch
while ! $taken; do
    # One process. On several GPUs: bash docs/launch/eight_gpus.sh, whose status is 0 or 1 alone.
    "$PYTHON" -m sslaudio pretrain --config "$CONFIG" --data.shards "$SHARDS" \
        --out "$RUN" --resume auto "$@" &
    training=$!
    copied=$SECONDS
    while kill -0 "$training" 2>/dev/null; do
        sleep 2 &
        wait $! || true # a signal to this script ends the wait
        $taken || ! going || leave
        if ((SECONDS - copied >= SYNC_SECONDS)); then
            publish || echo "spot.sh: the run could not be copied; trying again" >&2
            copied=$SECONDS
        fi
    done
    status=0
    wait "$training" || status=$?
    publish || publish
    case $status in
        75 | 143) ;; # asked to stop: go on, unless the machine goes
        *) exit "$status" ;;
    esac
done
exit 75
