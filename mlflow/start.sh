#!/usr/bin/env bash
# Start the tracking server on loopback. The environment can change everything; no default contains a password.
#   MLFLOW_BACKEND_STORE_URI   default: SQLite under $MLFLOW_HOME; PostgreSQL: postgresql+psycopg://user@host/db
#   MLFLOW_ARTIFACTS           default: $MLFLOW_HOME/artifacts, served through the server; or s3://bucket/path
#   MLFLOW_ARTIFACTS_DIRECT    if set: clients read and write MLFLOW_ARTIFACTS (s3://...) themselves, with their own AWS_*
#   MLFLOW_HOME                default: ./.mlflow
#   MLFLOW_HOST, MLFLOW_PORT   default: 127.0.0.1, 5000
#   MLFLOW_WORKERS             default: 1
#   MLFLOW_SERVER_ALLOWED_HOSTS   the server's host names, if not only localhost or a private address
#   MLFLOW_AUTH_ADMIN_PASSWORD    if set: everyone must log in (user admin has this password, at least 12 characters).
#                                 Clients: MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD
#   NAME_FILE                     a file that contains PGPASSWORD, MLFLOW_AUTH_ADMIN_PASSWORD or MLFLOW_FLASK_SERVER_SECRET_KEY
set -euo pipefail
home="${MLFLOW_HOME:-$PWD/.mlflow}"
mkdir -p "$home/artifacts"
home="$(cd "$home" && pwd)"
export MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # eight more processes, which nothing here uses

for name in PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY; do
  file="${name}_FILE"
  if [[ -z "${!name:-}" && -n "${!file:-}" ]]; then
    export "$name=$(<"${!file}")"
  fi
done

auth=()
if [[ -n "${MLFLOW_AUTH_ADMIN_PASSWORD:-}" ]]; then
  export MLFLOW_AUTH_CONFIG_PATH="$home/auth.ini"
  (
    umask 077
    # The cache saves about 180 ms of password hashing on every call.
    printf '[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///%s\nadmin_username = admin\n' "$home/auth.db"
    printf 'authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n'
    printf 'grant_default_workspace_access = false\nauth_cache_ttl_seconds = 60\n'
  ) >"$MLFLOW_AUTH_CONFIG_PATH"
  if [[ -z "${MLFLOW_FLASK_SERVER_SECRET_KEY:-}" ]]; then # for sessions; the same after a restart
    [[ -f "$home/secret" ]] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$home/secret")
    MLFLOW_FLASK_SERVER_SECRET_KEY="$(<"$home/secret")"
    export MLFLOW_FLASK_SERVER_SECRET_KEY
  fi
  auth=(--app-name basic-auth)
fi

artifacts=(--artifacts-destination "${MLFLOW_ARTIFACTS:-$home/artifacts}")
if [[ -n "${MLFLOW_ARTIFACTS_DIRECT:-}" ]]; then
  artifacts=(--no-serve-artifacts --default-artifact-root "${MLFLOW_ARTIFACTS:?a place that every client reaches, such as s3://bucket/path}")
fi

exec "${MLFLOW_BIN:-mlflow}" server ${auth[@]+"${auth[@]}"} \
  --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-1}" \
  --backend-store-uri "${MLFLOW_BACKEND_STORE_URI:-sqlite:///$home/mlflow.db}" \
  "${artifacts[@]}"
