#!/bin/sh
# Restarts the nodes of a testnet one after the other, as an upgrade does, and goes on only when the last one is back:
# all see all alive, and if there is an ordered log it takes an entry from the restarted node.
#
#   configs/scripts/rolling-restart.sh demo
#
# Needs jq. Ends with 0 when every lane held at the end too, by the report.
set -eu
name=${1:-demo}
status=$(wattle testnet status --name "$name" --json)
nodes=$(echo "$status" | jq -r '.nodes[].index')
count=$(echo "$status" | jq '.nodes | length')

for node in $nodes; do
  wattle testnet restart "$node" --name "$name"
  for other in $nodes; do
    wattle -t "$name/$other" wait --members "$count" --timeout 30s
  done
  if wattle -t "$name/$node" order status >/dev/null 2>&1; then
    wattle -t "$name/$node" order submit "node $node is back" --timeout 30s
  fi
done
wattle testnet report --name "$name"
