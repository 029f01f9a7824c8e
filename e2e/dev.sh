#!/usr/bin/env bash
# Pastes the commands that "rescind dev" printed, one after the other: e2e/dev.sh OUTPUT
set -euo pipefail
. "$(dirname "$0")/lib.sh"

mapfile -t commands < <(sed -n 's/^ *\(curl .*\)$/\1/p' "$1")
expect 'four commands are printed' 4 "${#commands[@]}"
wanted=(200 200 401 200)
for i in "${!commands[@]}"; do
    # As printed; only where the answer goes is added.
    status=$(bash -c "${commands[i]} -o '$WORK/body' -w '%{http_code}'")
    expect "command $((i + 1))" "${wanted[i]:-none}" "$status"
done
grep -q 'NOT FOR PRODUCTION' "$1" || fail 'it does not say that it is not for production'
operate=$(sed -n 's/^ *Operate it: *rescind \(.*\)$/\1/p' "$1")
# shellcheck disable=SC2086
expect 'the command to operate it' 1 "$("$RESCIND" $operate --json | grep -c '"name":"demo"')"
finish
