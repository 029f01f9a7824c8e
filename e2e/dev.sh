#!/usr/bin/env bash
# Pastes the commands that "rescind dev" printed, one after the other: e2e/dev.sh OUTPUT
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# Lines that end in a backslash go on, as in a shell.
printed=$(sed -e ':a' -e '/\\$/N; s/\\\n//; ta' "$1")
mapfile -t variables < <(sed -n 's/^ *\([A-Z]*=.*\)$/\1/p' <<<"$printed")
expect 'five variables are printed' 5 "${#variables[@]}"
mapfile -t commands < <(sed -n 's/^    \(curl .*\)$/\1/p' <<<"$printed")
expect 'five commands are printed' 5 "${#commands[@]}"
wanted=(200 200 200 401 200)
for i in "${!commands[@]}"; do
    # As printed; only where the answer goes is added.
    status=$(bash -c "$(printf '%s\n' "${variables[@]}" "${commands[i]} -o '$WORK/body' -w '%{http_code}'")")
    expect "command $((i + 1))" "${wanted[i]:-none}" "$status"
done
grep -q 'NOT FOR PRODUCTION' "$1" || fail 'it does not say that it is not for production'
operate=$(sed -n 's/^ *Operate it: *rescind \(.*\)$/\1/p' "$1")
# shellcheck disable=SC2086
expect 'the command to operate it' 1 "$("$RESCIND" $operate --json | grep -c '"name":"demo"')"
# The README's command. Cargo starts the compiler only when it knows which program is meant.
readme=$(grep -x 'cargo run .* -- dev' README.md)
like "README.md's command names one program" 'false -vV' "$(RUSTC=false bash -c "$readme" 2>&1)"
finish
