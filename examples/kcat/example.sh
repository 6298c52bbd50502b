#!/usr/bin/env bash
# Uses a Flotilla node through kcat: produces with each compression, reads
# everything back, and asks for metadata and offsets. What it saw goes to
# standard output, one JSON object a line.
#
#   flotilla topic create greetings --partitions 2
#   examples/kcat/example.sh 127.0.0.1:9092 greetings
#
# It needs kcat and jq. It adds to the topic: give a new one each time.
set -euo pipefail
[ $# = 2 ] || { echo "usage: example.sh HOST:PORT TOPIC" >&2; exit 2; }
addr=$1 topic=$2

# The node is near: what takes longer has failed.
kcat() { timeout 12 kcat -b "$addr" "$@"; }

kcat -L -J -t "$topic" -m 5 | jq -c '{step: "metadata", topic: .topics[0].topic, brokers: [.brokers[].name],
  leaders: [.topics[0].partitions[].leader]}'

# Keyed records with headers, by an idempotent producer, in turn to each
# partition. With -vv kcat tells where each record lies, in the order of sending.
partition=0
for codec in none gzip snappy lz4 zstd; do
  for i in 0 1 2 3 4 5; do
    printf '%s-%d:' "$codec" "$i"
    printf "$codec record $i. %.0s" {1..40}
    echo
  done |
    kcat -P -t "$topic" -p "$partition" -K: -z "$codec" -H "codec=$codec" -H by=kcat \
      -X enable.idempotence=true -X message.timeout.ms=5000 -vv 2>&1 |
    sed -nE 's/^% Message delivered to partition ([0-9]+) \(offset ([0-9]+)\).*/\1 \2/p' |
    jq -Rcn --arg codec "$codec" '[inputs | split(" ") | map(tonumber)] | to_entries[] |
      {step: "produced", codec: $codec, key: "\($codec)-\(.key)", partition: .value[0], offset: .value[1]}'
  partition=$((1 - partition))
done

# The whole topic, from its beginning to its end.
say_records() {
  jq -c --arg step "$1" '{$step, partition, offset, timestamp: .ts, key, value: .payload,
    headers: [.headers | _nwise(2) | {(.[0]): .[1]}] | add}'
}
records=$(kcat -C -t "$topic" -o beginning -e -J -q)
say_records consumed <<<"$records"

# And once more as the only member of a group, which commits what it has read when
# it leaves. A group's first member waits for others, by default for 3 s.
kcat -G "$topic-group" -X auto.offset.reset=earliest -e -J -q "$topic" | say_records group-consumed

# Where partitions begin and end, and the first record that is not older than one
# in the middle.
at=$(jq -s 'map(.ts) | sort | .[length / 2 | floor]' <<<"$records")
offset() { kcat -Q -t "$topic:$1:$2" | sed -E 's/.* offset (-?[0-9]+)$/\1/'; }
for partition in 0 1; do
  jq -cn --argjson partition "$partition" --argjson at_ms "$at" --argjson earliest "$(offset "$partition" -2)" \
    --argjson latest "$(offset "$partition" -1)" --argjson at "$(offset "$partition" "$at")" \
    '{step: "offsets", $partition, $earliest, $latest, $at_ms, $at}'
done
