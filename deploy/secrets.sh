#!/bin/sh
# Makes what is missing of the stack's secrets, in deploy/secrets (or the folder given); what is there stays. The
# database's password and the credentials key belong to the data in the volumes: losing them loses that.
#
# The folder is closed to others; the files in it are not, since each container reads those that are mounted into it as
# a user of its own.
set -eu
dir=${1:-$(dirname -- "$0")/secrets}
mkdir -p "$dir"
chmod 700 "$dir"

# secret NAME COMMAND…: the command's output becomes the secret, unless there is one.
secret() {
  file=$dir/$1; shift
  [ -s "$file" ] && return
  (umask 077; "$@" >"$file.new")
  chmod 644 "$file.new"
  mv "$file.new" "$file"
  echo "made $file"
}
hex() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }
key() { printf 'v1:%s' "$(head -c 32 /dev/urandom | base64 | tr -d '\n')"; }

secret postgres_password hex 24
secret postgres_exporter_password hex 24
secret service_token hex 32
secret admin_token hex 24
secret credentials_keys key
secret grafana_admin_password hex 12
# Nobody is notified until these hold the real ones; .invalid is no name that anybody may own.
secret slack_webhook_url printf %s https://slack.invalid/put-the-webhook-url-here
secret pagerduty_routing_key printf %s put-the-routing-key-here
secret dead_man_url printf %s https://dead-man.invalid/put-the-ping-url-here
# Agents are told once this is a key of DevOps MCP itself: docs/OPERATIONS.md#incidents.
secret incidents_url printf %s http://rest-api:8080/api/v1/alerts
secret incidents_api_key printf %s put-the-api-key-here
