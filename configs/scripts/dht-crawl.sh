#!/bin/sh
# Who is in the DHT: asks for the nodes nearest to each node that it knows, until nobody is new. Ids, a line each.
#
#   configs/scripts/dht-crawl.sh
#   configs/scripts/dht-crawl.sh -t demo/0
set -eu
files=$(mktemp -d)
trap 'rm -r "$files"' EXIT

wattle "$@" id -q > "$files/known"
: > "$files/asked"
while comm -23 "$files/known" "$files/asked" > "$files/new" && [ -s "$files/new" ]; do
  while IFS= read -r node; do
    wattle "$@" dht closest "$node" -q
  done < "$files/new" > "$files/found"
  sort -u "$files/asked" "$files/new" -o "$files/asked"
  sort -u "$files/known" "$files/found" -o "$files/known"
done
cat "$files/known"
