#!/usr/bin/env bash
# Builds the servers that tests run into build/ at the repository's top:
# build/etcd35/{etcd,etcdctl,etcdutl}, build/versitygw/versitygw and so on, one
# folder a nested module; all of them, or those named. A folder whose go.mod,
# go.sum and go version are unchanged is left alone.
set -euo pipefail
cd "$(dirname "$0")"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# fresh MODULE: is what lies in build/ already made from these sources?
fresh() {
  { cat "$1/go.mod" "$1/go.sum" build.sh; (cd "$1" && go version); } | cksum >"$scratch/$1"
  cmp -s "$scratch/$1" "../build/$1/stamp"
}

built() { cp "$scratch/$1" "../build/$1/stamp"; }

package() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    age) echo filippo.io/age/cmd/age ;;
    versitygw) echo github.com/versity/versitygw/cmd/versitygw ;;
    *) echo "go.etcd.io/etcd/$1/v3" ;;
  esac
}

build() {
  local module=$1 program
  shift
  if fresh "$module"; then return; fi
  for program in "$@"; do
    echo "building $module/$program" >&2
    (cd "$module" && go build -trimpath -ldflags '-s -w' -o "../../build/$module/$program" "$(package "$program")")
  done
  built "$module"
}

# etcd 2.3 comes from before modules, with its dependencies in a folder that
# goes on GOPATH. One of them panics in today's Go: a base64 alphabet that it
# never decodes with has a letter twice.
build23() {
  if fresh etcd23; then return; fi
  local top source out program file
  top=$scratch/src/github.com/coreos
  out=$(cd .. && pwd)/build/etcd23
  source=$(cd etcd23 && go mod download github.com/coreos/etcd && go list -m -f '{{.Dir}}' github.com/coreos/etcd)
  mkdir -p "$top"
  cp -R "$source" "$top/etcd"
  chmod -R u+w "$top"
  file=Godeps/_workspace/src/github.com/ugorji/go/codec/gen.go
  sed 's/0123456789__"/0123456789_-"/' "$source/$file" >"$top/etcd/$file"
  for program in . etcdctl; do
    echo "building etcd23/${program/./etcd}" >&2
    (cd "$top/etcd/$program" && GO111MODULE=off GOFLAGS='' GOPATH="$scratch:$top/etcd/Godeps/_workspace" \
      go build -trimpath -ldflags '-s -w' -o "$out/${program/./etcd}" .)
  done
  built etcd23
}

if [ $# -eq 0 ]; then
  set -- etcd23 etcd35 etcd36 etcd37 versitygw age
fi
for module; do
  case $module in
    etcd23) build23 ;;
    age | versitygw) build "$module" "$module" ;;
    *) build "$module" etcd etcdctl etcdutl ;;
  esac
done
