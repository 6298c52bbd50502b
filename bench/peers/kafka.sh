#!/usr/bin/env bash
# Apache Kafka to compare with, one node, or one of a cluster, without a network beyond this machine.
#
#   kafka.sh serve JARS DATA PORT [ID CLUSTER CONTROLLERS]
#
# runs it at 127.0.0.1:PORT, and its controller at PORT+1, until it is told to stop (SIGTERM). JARS is what make
# kafka-jars has filled, and DATA its data directory, made if missing. A cluster is nodes that have the same
# CLUSTER, an id of 16 bytes in base64, and the same CONTROLLERS, their ports PORT+1 with commas between them; ID
# counts them from 1. Then topics have a replica on each node, and acks=all waits for a majority of them.
#
# Everything is Kafka's default, and what its own start script gives to Java, with two kinds of exceptions: what
# so many nodes need, and the log, which says errors only. So nothing is fsynced before it is acknowledged; with
# KAFKA_FLUSH=1 in the environment each append is. KAFKA_SETTINGS there is more settings, a line each.
set -eu

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

serve() {
  mkdir -p "$2"
  libs=$(cd "$1" && pwd)
  data=$(cd "$2" && pwd)
  node=${4:-1}
  cluster=${5:-}
  controllers=${6:-$(($3 + 1))}
  voters='' nodes=0
  for port in ${controllers//,/ }; do
    nodes=$((nodes + 1))
    voters=$voters${voters:+,}$nodes@127.0.0.1:$port
  done
  majority=$((nodes / 2 + 1))
  cat > "$data/server.properties" <<CONF
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:$3,CONTROLLER://127.0.0.1:$(($3 + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$3
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/log
offsets.topic.replication.factor=$nodes
transaction.state.log.replication.factor=$nodes
transaction.state.log.min.isr=$majority
share.coordinator.state.topic.replication.factor=$nodes
share.coordinator.state.topic.min.isr=$majority
CONF
  if [ "$nodes" -gt 1 ]; then # of one node they would be the defaults, but called settings
    printf '%s\n' "default.replication.factor=$nodes" "min.insync.replicas=$majority" >> "$data/server.properties"
  fi
  if [ "${KAFKA_FLUSH:-0}" = 1 ]; then
    echo log.flush.interval.messages=1 >> "$data/server.properties"
  fi
  if [ -n "${KAFKA_SETTINGS:-}" ]; then
    printf '%s\n' "$KAFKA_SETTINGS" >> "$data/server.properties"
  fi
  if [ ! -f "$data/log/meta.properties" ]; then
    if [ -z "$cluster" ]; then
      cluster=$(java -cp "$libs/*" kafka.tools.StorageTool random-uuid | tail -n 1)
    fi
    java -Dlog4j2.level=ERROR -cp "$libs/*" kafka.tools.StorageTool format -t "$cluster" -c "$data/server.properties" >&2
  fi
  exec java -Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
    -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true -Dlog4j2.level=ERROR \
    -cp "$libs/*" kafka.Kafka "$data/server.properties"
}

case "${1:-}:$#" in
serve:4 | serve:7) shift; serve "$@" ;;
*) usage ;;
esac
