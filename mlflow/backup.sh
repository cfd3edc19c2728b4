#!/usr/bin/env bash
# Copy the tracking server's database and artifacts into a new folder: `mlflow/backup.sh FOLDER`, with the environment of start.sh.
# The server may keep running. Uses PostgreSQL's pg_dump or SQLite's backup; artifacts on S3 need a backup of the store.
set -euo pipefail
out="${1:?usage: mlflow/backup.sh FOLDER}"
home="${MLFLOW_HOME:-$PWD/.mlflow}"
store="${MLFLOW_BACKEND_STORE_URI:-sqlite:///$home/mlflow.db}"
[[ ! -e "$out" ]] || { echo "a backup goes into a new folder; $out exists" >&2; exit 2; }
if [[ -z "${PGPASSWORD:-}" && -n "${PGPASSWORD_FILE:-}" ]]; then
  PGPASSWORD="$(<"$PGPASSWORD_FILE")"
  export PGPASSWORD
fi
copy() { python3 -c 'import sqlite3, sys; a, b = map(sqlite3.connect, sys.argv[1:]); a.backup(b); b.close()' "$1" "$2"; }
umask 077
working="$(mktemp -d "$(dirname "$out")/.backup.XXXXXX")"
trap 'rm -rf "$working"' EXIT
# The database first: an artifact that is added later is only superfluous.
case "$store" in
  postgresql*) pg_dump --format=custom --file="$working/mlflow.dump" "postgresql://${store#*://}" ;;
  sqlite:///*) copy "${store#sqlite:///}" "$working/mlflow.db" ;;
  *) echo "only PostgreSQL and SQLite are backed up, got $store" >&2; exit 2 ;;
esac
[[ ! -f "$home/auth.db" ]] || copy "$home/auth.db" "$working/auth.db"
[[ ! -f "$home/secret" ]] || cp "$home/secret" "$working/secret"
artifacts="${MLFLOW_ARTIFACTS:-$home/artifacts}"
case "$artifacts" in
  *://*) ;;
  *) tar -C "$artifacts" -cf "$working/artifacts.tar" . ;;
esac
mv "$working" "$out"
echo "backup is in $out"
