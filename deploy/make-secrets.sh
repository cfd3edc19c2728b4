#!/usr/bin/env bash
# Create every secret that deploy/ needs, once, in ./secrets beside this file (or in $1); there are no default passwords.
set -euo pipefail
folder="${1:-$(dirname "$0")/secrets}"
umask 077
mkdir -p "$folder"
for name in postgres_password mlflow_admin_password mlflow_secret_key ray_token endpoint_token grafana_password; do
  [ -s "$folder/$name" ] || head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n' > "$folder/$name"
done
# Containers run as another user than the one who runs this script.
chmod 755 "$folder" && chmod 644 "$folder"/*
echo "secrets are in $folder"
