#!/usr/bin/env bash
# SQLite 3.54.1 (apsw 3.54.1.0), WAL mode, on a file system without room. Debian 12.
#
# Expected: SQLITE_FULL ("database or disk is full"), as its documentation lists for a write that does not fit.
# Happens: whether it says so depends on which of its files comes too late. Where there is room for the first page but not for
# the index of the log (`-shm`), it is an error of the disk: SQLITE_IOERR_SHMSIZE, "disk I/O error". A service that looks for
# SQLITE_FULL tells its operator to replace the disk.
# Seen:
#     4k FullError 13
#     12k IOError 4874
#     64k FullError 13
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages apsw==3.54.1.0
cat >fill.py <<'PYTHON'
import sys

import apsw

database = apsw.Connection(f"{sys.argv[2]}/store.db")
try:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t (x)")
    for _ in range(10_000):
        database.execute("INSERT INTO t VALUES (randomblob(1000))")
except apsw.Error as error:
    print(sys.argv[1], type(error).__name__, error.extendedresult)
PYTHON
mkdir small
# Who is not root may mount where they are.
map=()
[ "$(id -u)" -eq 0 ] || map=(--map-root-user)
on_disk_of() {
    # shellcheck disable=SC2016
    unshare "${map[@]}" --mount sh -c 'mount -t tmpfs -o "size=$1" none small && python3 fill.py "$1" small' sh "$1"
}
for size in 4k 12k 64k; do on_disk_of "$size"; done | tee seen
grep -q '^12k IOError 4874$' seen || changed 'a full disk that has no room for the index of the log'
grep -q '^64k FullError 13$' seen || changed 'a full disk that has room for the index of the log'
