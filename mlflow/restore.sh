#!/usr/bin/env bash
# Restore a backup into an empty home and database: `mlflow/restore.sh FOLDER`, with the environment of start.sh, while the server is stopped.
set -euo pipefail
from="${1:?usage: mlflow/restore.sh FOLDER}"
home="${MLFLOW_HOME:-$PWD/.mlflow}"
store="${MLFLOW_BACKEND_STORE_URI:-sqlite:///$home/mlflow.db}"
if [[ -z "${PGPASSWORD:-}" && -n "${PGPASSWORD_FILE:-}" ]]; then
  PGPASSWORD="$(<"$PGPASSWORD_FILE")"
  export PGPASSWORD
fi
umask 077
mkdir -p "$home"
[[ ! -e "$home/mlflow.db" && ! -e "$home/artifacts" ]] || { echo "a backup is restored into an empty home; $home is not" >&2; exit 2; }
case "$store" in
  postgresql*) pg_restore --exit-on-error --no-owner --dbname="postgresql://${store#*://}" "$from/mlflow.dump" ;;
  sqlite:///*) cp "$from/mlflow.db" "${store#sqlite:///}" ;;
  *) echo "only PostgreSQL and SQLite are restored, got $store" >&2; exit 2 ;;
esac
for name in auth.db secret; do
  [[ ! -f "$from/$name" ]] || cp "$from/$name" "$home/$name"
done
if [[ -f "$from/artifacts.tar" ]]; then
  artifacts="${MLFLOW_ARTIFACTS:-$home/artifacts}"
  mkdir -p "$artifacts"
  tar -C "$artifacts" -xf "$from/artifacts.tar"
fi
echo "$from is restored"
