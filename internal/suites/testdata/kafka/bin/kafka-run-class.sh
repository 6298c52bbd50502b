#!/bin/sh
# Kafka's script of this name as far as librdkafka's tests use it: a class of the jars
# in KAFKA_JARS.
exec java -Xshare:auto -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$KAFKA_JARS/*:$CLASSPATH" "$@"
