#!/bin/sh
# A bot that answers in a room, from now on: `!time` and `!members`. Options of wattle come after the room:
#
#   configs/scripts/chat-bot.sh dev
#   configs/scripts/chat-bot.sh dev -t demo/0
#
# Needs jq. A text of somebody else is data: it is compared, and never run.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 ROOM [OPTION]..." >&2; exit 2; }
room=$1
shift

wattle "$@" chat tail "$room" -f -c 0 --json |
  jq --unbuffered -r 'select(.type == "message" and .kind == "text" and (.own | not)) | .text | split("\n")[0]' |
  while IFS= read -r text; do
    case $text in
      '!time') answer=$(date -u '+it is %H:%M:%S UTC') ;;
      '!members') answer="$(wattle "$@" members --json | jq .counts.alive) are alive" ;;
      *) continue ;;
    esac
    wattle "$@" chat send "$room" "$answer"
  done
