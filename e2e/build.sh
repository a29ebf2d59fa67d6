#!/usr/bin/env bash
# Builds the etcds that the e2e tests run into build/ at the repository's top:
# build/etcd35/{etcd,etcdctl,etcdutl} and so on, one folder a nested module.
# A folder whose go.mod, go.sum and go version are unchanged is left alone.
set -euo pipefail
cd "$(dirname "$0")"

stamp() {
  cat "$1/go.mod" "$1/go.sum" build.sh
  (cd "$1" && go version)
}

package() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    *) echo "go.etcd.io/etcd/$1/v3" ;;
  esac
}

build() {
  local module=$1 out=../build/$1 want program
  shift
  want=$(stamp "$module" | cksum)
  if [ "$(cat "$out/stamp" 2>/dev/null)" = "$want" ]; then
    return
  fi
  mkdir -p "$out"
  for program in "$@"; do
    echo "building $module/$program" >&2
    (cd "$module" && go build -trimpath -ldflags '-s -w' -o "../$out/$program" "$(package "$program")")
  done
  echo "$want" >"$out/stamp"
}

build etcd35 etcd etcdctl etcdutl
build etcd36 etcd etcdctl
build etcd37 etcd etcdctl etcdutl
