#!/usr/bin/env bash
# Start the tracking server on loopback. Everything can be changed by the environment; nothing has a password in it.
#   MLFLOW_BACKEND_STORE_URI   default: SQLite under $MLFLOW_HOME; PostgreSQL: postgresql+psycopg://user@host/db
#   MLFLOW_ARTIFACTS           default: $MLFLOW_HOME/artifacts, served through the server; or s3://bucket/path
#   MLFLOW_HOME                default: ./.mlflow
#   MLFLOW_HOST, MLFLOW_PORT   default: 127.0.0.1, 5000
#   MLFLOW_WORKERS             default: 1
set -euo pipefail
home="${MLFLOW_HOME:-$PWD/.mlflow}"
mkdir -p "$home/artifacts"
export MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # eight further processes that nothing here uses
exec "${MLFLOW_BIN:-mlflow}" server \
  --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-1}" \
  --backend-store-uri "${MLFLOW_BACKEND_STORE_URI:-sqlite:///$home/mlflow.db}" \
  --artifacts-destination "${MLFLOW_ARTIFACTS:-$home/artifacts}"
