#!/bin/sh
# Makes the Secrets that are missing in a cluster; `--help` says how. What is there stays as it is.
#
# Values go through files that only this user reads, and never stand in a command's arguments: every user of this machine
# sees those.
set -eu
umask 077

usage() {
  cat <<'USAGE'
deploy/kubernetes/secrets.sh [OPTION…]

Makes what is missing of the Secrets that the manifests name, with kubectl and openssl, in the cluster and as the user
that kubectl is set to. What is there stays as it is; run it as often as you like.

  --database-url URL              postgres://USER@HOST:5432/DATABASE[?sslmode=verify-full&…], without a password
  --database-password-file FILE   its password; without it, one is made, and printed is where to read it
  --database-ca-file FILE         the CA of its certificate where that is a private one; add to the URL
                                  sslmode=verify-full&sslrootcert=/run/secrets/devops-mcp/database_ca.crt
  --redis-url URL                 redis://HOST:6379, or rediss:// for TLS; one with a password in it: --redis-url-file
  --redis-url-file FILE           a file that holds that URL
  --exporter-user NAME            PostgreSQL's role for postgres-exporter: monitoring
  --exporter-password-file FILE   its password; without it, one is made
  --rotate-tls                    makes the three certificates anew, by the same CA; services take them up by themselves
  --without-tls                   leaves certificates to others, such as cert-manager
  --without-monitoring            leaves the monitoring's Secrets out
  --namespace NAME                devops-mcp
  --monitoring-namespace NAME     devops-mcp-monitoring
  -h, --help                      this

Certificates hold for 90 days, their CA for ten years. Its key is in the Secret devops-mcp-ca, which no pod mounts: who
reads Secrets in that namespace can make certificates that the services trust.

It ends with 0 when everything is there, with 1 when something is missing that it cannot make (and says what), with 2
when the options are wrong.
USAGE
}

refuse() { echo "secrets.sh: $*" >&2; exit 2; }

namespace=devops-mcp
monitoring=devops-mcp-monitoring
database_url='' database_password_file='' database_ca_file='' redis_url='' redis_url_file=''
exporter_user=monitoring exporter_password_file=''
tls=yes rotate='' with_monitoring=yes
while [ $# -gt 0 ]; do
  case $1 in
    --rotate-tls) rotate=yes; shift; continue ;;
    --without-tls) tls=''; shift; continue ;;
    --without-monitoring) with_monitoring=''; shift; continue ;;
    -h | --help) usage; exit ;;
    --*=*) option=${1%%=*}; value=${1#*=}; shift ;;
    --*) option=$1; [ $# -gt 1 ] || refuse "$1 needs a value, or is no option; see --help"; value=$2; shift 2 ;;
    *) refuse "$1 is no option; see --help" ;;
  esac
  case $option in
    --database-url) database_url=$value ;;
    --database-password-file) database_password_file=$value ;;
    --database-ca-file) database_ca_file=$value ;;
    --redis-url) redis_url=$value ;;
    --redis-url-file) redis_url_file=$value ;;
    --exporter-user) exporter_user=$value ;;
    --exporter-password-file) exporter_password_file=$value ;;
    --namespace) namespace=$value ;;
    --monitoring-namespace) monitoring=$value ;;
    *) refuse "$option is no option; see --help" ;;
  esac
  case $option in
    *-file) [ -r "$value" ] || refuse "$option: $value cannot be read" ;;
  esac
done
for tool in kubectl openssl; do
  command -v "$tool" >/dev/null || refuse "$tool is not installed"
done
[ -z "$rotate" ] || [ -n "$tls" ] || refuse "--rotate-tls and --without-tls exclude each other"
[ -z "$redis_url" ] || [ -z "$redis_url_file" ] || refuse "--redis-url and --redis-url-file exclude each other"
case $database_url in
  '' | postgres://*@* | postgresql://*@*) ;;
  *) refuse "--database-url: expected postgres://USER@HOST:5432/DATABASE" ;;
esac
case ${database_url#*://} in
  *:*@*) refuse "--database-url holds a password, which all users of this machine see: use --database-password-file" ;;
esac
case $redis_url in
  '' | redis://* | rediss://*) ;;
  *) refuse "--redis-url: expected redis://HOST:6379 or rediss://…" ;;
esac
case ${redis_url#*://} in
  *:*@*) refuse "--redis-url holds a password, which all users of this machine see: use --redis-url-file" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
missing=''

there() { # there NAMESPACE KIND NAME: whether it is; an API server that does not answer is no "no"
  found=$(kubectl -n "$1" get "$2" "$3" --ignore-not-found -o name) || exit 1
  [ -n "$found" ]
}

# make NAMESPACE NAME TYPE FILE…: a Secret whose keys are the files' names.
make() {
  make_namespace=$1 make_name=$2 make_type=$3; shift 3
  for file in "$@"; do set -- "$@" "--from-file=$work/$file"; shift; done
  kubectl -n "$make_namespace" create secret generic "$make_name" --type="$make_type" "$@" --dry-run=client -o yaml |
    kubectl label --local -f - -o yaml app.kubernetes.io/part-of=devops-mcp >"$work/manifest"
  # `create` and `replace`: `apply` would keep a second copy of the values in an annotation.
  if there "$make_namespace" secret "$make_name"; then
    kubectl replace -f "$work/manifest" >/dev/null
    echo "made $make_namespace/$make_name anew"
  else
    kubectl create -f "$work/manifest" >/dev/null
    echo "made $make_namespace/$make_name"
  fi
}

# line FILE: what it holds, without the newline that an editor may have ended it with.
line() {
  content=$(cat "$1")
  [ -n "$content" ] || refuse "$1 is empty"
  printf %s "$content"
}
hex() { openssl rand -hex "$1" | tr -d '\n'; }
key() { printf 'v1:%s' "$(openssl rand -base64 32 | tr -d '\n')"; }

# random NAMESPACE NAME KEY COMMAND…: a Secret of one key, unless there is one; the command prints its value.
random() {
  random_namespace=$1 random_name=$2 random_key=$3; shift 3
  there "$random_namespace" secret "$random_name" && return
  "$@" >"$work/$random_key"
  make "$random_namespace" "$random_name" Opaque "$random_key"
}

namespaces() {
  for name in "$namespace" ${with_monitoring:+"$monitoring"}; do
    there default namespace "$name" && continue
    # As the manifests have it; they add what else belongs to it.
    kubectl apply -f - >/dev/null <<NAMESPACE
apiVersion: v1
kind: Namespace
metadata:
  name: $name
  labels: {pod-security.kubernetes.io/enforce: restricted}
NAMESPACE
    echo "made namespace $name"
  done
}

# kept NAMESPACE NAME OPTION: whether it is there; says that an option for it changes nothing.
kept() {
  there "$1" secret "$2" || return 1
  [ -z "$3" ] || echo "$1/$2 is there and stays as it is"
}

database() {
  kept "$namespace" database "$database_url$database_password_file$database_ca_file" && return
  if [ -z "$database_url" ]; then
    missing="$missing
  $namespace/database: say --database-url"
    return
  fi
  printf %s "$database_url" >"$work/url"
  if [ -n "$database_password_file" ]; then line "$database_password_file"; else hex 24; fi >"$work/password"
  if [ -n "$database_ca_file" ]; then
    cp "$database_ca_file" "$work/ca.crt"
    make "$namespace" database Opaque url password ca.crt
  else
    make "$namespace" database Opaque url password
  fi
  [ -n "$database_password_file" ] ||
    echo "  its password is new; the database must be given it:" \
      "kubectl -n $namespace get secret database -o jsonpath='{.data.password}' | base64 -d"
}

redis() {
  kept "$namespace" redis "$redis_url$redis_url_file" && return
  if [ -n "$redis_url_file" ]; then
    line "$redis_url_file" >"$work/url"
  elif [ -n "$redis_url" ]; then
    printf %s "$redis_url" >"$work/url"
  else
    missing="$missing
  $namespace/redis: say --redis-url"
    return
  fi
  make "$namespace" redis Opaque url
}

# certificate NAME: $work/NAME/{tls.crt,tls.key,ca.crt}, signed by $work/ca.
certificate() {
  mkdir -p "$work/$1"
  cat >"$work/request.cnf" <<CNF
[req]
distinguished_name = name
prompt = no
[name]
CN = $1
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:$1, DNS:$1-grpc, DNS:$1-grpc.$namespace.svc, DNS:$1-grpc.$namespace.svc.cluster.local
CNF
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$work/$1/tls.key"
  openssl req -new -config "$work/request.cnf" -key "$work/$1/tls.key" -out "$work/request.pem"
  openssl x509 -req -in "$work/request.pem" -CA "$work/ca/tls.crt" -CAkey "$work/ca/tls.key" \
    -set_serial "0x$(openssl rand -hex 16)" -days 90 -sha256 -extfile "$work/request.cnf" -extensions leaf \
    -out "$work/$1/tls.crt" 2>"$work/openssl" || { cat "$work/openssl" >&2; exit 1; }
  # Who is believed already still is, for a CA is changed in steps. A certificate's second line holds its number.
  if there "$namespace" secret "$1-tls"; then
    kubectl -n "$namespace" get secret "$1-tls" -o go-template='{{index .data "ca.crt" | base64decode}}' >"$work/$1/ca.crt"
  fi
  grep -qsxF "$(sed -n 2p "$work/ca/tls.crt")" "$work/$1/ca.crt" || cat "$work/ca/tls.crt" >>"$work/$1/ca.crt"
}

# The CA's files in $work/ca, from its Secret, or new ones and the Secret.
authority() {
  mkdir -p "$work/ca"
  if there "$namespace" secret devops-mcp-ca; then
    for file in tls.crt tls.key; do
      kubectl -n "$namespace" get secret devops-mcp-ca \
        -o go-template="{{index .data \"$file\" | base64decode}}" >"$work/ca/$file"
    done
    return
  fi
  for service in rest-api mcp-server worker; do
    if there "$namespace" secret "$service-tls"; then
      echo "$namespace/devops-mcp-ca is gone, and $service-tls is signed by it: services with certificates of another CA" >&2
      echo "would not be believed. Put it back, or delete the Secrets ending in -tls to begin anew (calls fail meanwhile)" >&2
      exit 1
    fi
  done
  cat >"$work/ca.cnf" <<'CNF'
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = DevOps MCP internal CA
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
CNF
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$work/ca/tls.key"
  openssl req -x509 -new -config "$work/ca.cnf" -key "$work/ca/tls.key" -sha256 -days 3650 -out "$work/ca/tls.crt"
  make "$namespace" devops-mcp-ca kubernetes.io/tls ca/tls.crt ca/tls.key
}

certificates() {
  wanted=''
  for service in rest-api mcp-server worker; do
    if [ -n "$rotate" ] || ! there "$namespace" secret "$service-tls"; then wanted="$wanted $service"; fi
  done
  [ -n "$wanted" ] || return 0
  authority
  for service in $wanted; do
    certificate "$service"
    make "$namespace" "$service-tls" kubernetes.io/tls "$service/tls.crt" "$service/tls.key" "$service/ca.crt"
  done
}

# postgres-exporter reads the same database as a role of its own, which reads statistics and nothing else.
postgres_exporter() {
  kept "$monitoring" postgres-exporter "$exporter_password_file" && return
  url=$database_url
  if [ -z "$url" ]; then
    there "$namespace" secret database || return 0
    url=$(kubectl -n "$namespace" get secret database -o go-template='{{.data.url | base64decode}}')
  fi
  uri=${url#*@}
  # Where the services have the database's CA, the exporter has none: it encrypts, and does not ask whom it speaks to.
  case $uri in
    *sslrootcert=*)
      uri=$(printf %s "$uri" | sed 's/&*sslrootcert=[^&]*//; s/?&/?/; s/sslmode=verify-full/sslmode=require/') ;;
  esac
  printf %s "$uri" >"$work/uri"
  printf %s "$exporter_user" >"$work/user"
  if [ -n "$exporter_password_file" ]; then line "$exporter_password_file"; else hex 24; fi >"$work/password"
  make "$monitoring" postgres-exporter Opaque uri user password
  [ -n "$exporter_password_file" ] ||
    echo "  its role is to be made with this password: deploy/kubernetes/README.md"
}

redis_exporter() {
  there "$monitoring" secret redis-exporter && return
  there "$namespace" secret redis || return 0
  kubectl -n "$namespace" get secret redis -o go-template='{{.data.url | base64decode}}' >"$work/address"
  make "$monitoring" redis-exporter Opaque address
}

alertmanager() {
  there "$monitoring" secret alertmanager && return
  # Nobody is notified until these hold the real ones; .invalid is no name that anybody may own.
  printf %s https://slack.invalid/put-the-webhook-url-here >"$work/slack_webhook_url"
  printf %s put-the-routing-key-here >"$work/pagerduty_routing_key"
  printf %s https://dead-man.invalid/put-the-ping-url-here >"$work/dead_man_url"
  # Agents are told once this is a key of DevOps MCP itself: docs/OPERATIONS.md#incidents.
  printf %s "http://rest-api.$namespace.svc:8080/api/v1/alerts" >"$work/incidents_url"
  printf %s put-the-api-key-here >"$work/incidents_api_key"
  make "$monitoring" alertmanager Opaque \
    slack_webhook_url pagerduty_routing_key dead_man_url incidents_url incidents_api_key
  echo "  it notifies nobody yet: put the real values in"
}

namespaces
random "$namespace" service-token service_token hex 32
random "$namespace" admin-token admin_token hex 24
random "$namespace" credentials-keys credentials_keys key
database
redis
[ -z "$tls" ] || certificates
if [ -n "$with_monitoring" ]; then
  random "$monitoring" grafana-admin password hex 12
  postgres_exporter
  redis_exporter
  alertmanager
fi
if [ -n "$missing" ]; then
  echo "secrets.sh: still missing:$missing" >&2
  exit 1
fi
