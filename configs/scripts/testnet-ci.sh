#!/bin/sh
# Four validators for as long as a command runs, as a CI job needs them:
#
#   configs/scripts/testnet-ci.sh ./my-tests.sh --fast
#
# The command talks to the nodes with `wattle -t ci/0` to `ci/3`. Whatever happens, nothing is left of them. Ends as
# the command ends; with 10 where the command was content and the nodes do not agree. NAME=ci NODES=4
set -eu
name=${NAME:-ci} nodes=${NODES:-4}
[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT]..." >&2; exit 2; }

wattle testnet up "$nodes" --validators 4 --name "$name"
trap 'wattle testnet down --name "$name"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

status=0
"$@" || status=$?
if [ "$status" -ne 0 ]; then
  wattle testnet logs --name "$name" >&2
  exit "$status"
fi
wattle testnet report --name "$name"
