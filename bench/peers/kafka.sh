#!/usr/bin/env bash
# Apache Kafka to compare with, one node without a network beyond this machine.
#
#   kafka.sh serve JARS DATA PORT      runs it at 127.0.0.1:PORT, and its controller at PORT+1, until it is
#                                      told to stop (SIGTERM); JARS is what make kafka-jars has filled, and
#                                      DATA its data directory, made if missing
#
# Everything is Kafka's default, and what its own start script gives to Java, with two kinds of exceptions: what
# one node needs, and the log, which says errors only. So nothing is fsynced before it is acknowledged; with
# KAFKA_FLUSH=1 in the environment each append is.
set -eu

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

serve() {
  mkdir -p "$2"
  libs=$(cd "$1" && pwd)
  data=$(cd "$2" && pwd)
  cat > "$data/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$(($3 + 1))
listeners=PLAINTEXT://127.0.0.1:$3,CONTROLLER://127.0.0.1:$(($3 + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$3
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
CONF
  if [ "${KAFKA_FLUSH:-0}" = 1 ]; then
    echo log.flush.interval.messages=1 >> "$data/server.properties"
  fi
  if [ ! -f "$data/log/meta.properties" ]; then
    id=$(java -cp "$libs/*" kafka.tools.StorageTool random-uuid | tail -n 1)
    java -Dlog4j2.level=ERROR -cp "$libs/*" kafka.tools.StorageTool format -t "$id" -c "$data/server.properties" >&2
  fi
  exec java -Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
    -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true -Dlog4j2.level=ERROR \
    -cp "$libs/*" kafka.Kafka "$data/server.properties"
}

case "${1:-}:$#" in
serve:4) serve "$2" "$3" "$4" ;;
*) usage ;;
esac
