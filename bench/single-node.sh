#!/usr/bin/env bash
# The figures of one node that docs/benchmarks.md publishes, one after the other
# on an idle machine:
#
#	bench/single-node.sh DIR [BINARY] [quick]
#
# DIR is a new directory on the disk to measure. It needs about 25 GB there, and
# the machine's memory filled with page cache first (docs/benchmarks.md says why).
set -euo pipefail
dir=${1:?usage: bench/single-node.sh DIR [BINARY] [quick]}
bin=${2:-bin/flotilla}
window=30s warm=10s idle=60
if [ "${3:-}" = quick ]; then window=5s warm=3s idle=5; fi
[ ! -e "$dir" ] || { echo "$dir exists; give a new directory" >&2; exit 2; }
mkdir -p "$dir"
port=$((20000 + RANDOM % 10000))
to=(--bootstrap "127.0.0.1:$port")
pid=0
trap '[ $pid = 0 ] || kill -9 $pid 2>/dev/null || true' EXIT

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
cpu() { awk '{ print ($14 + $15) / 100 }' "/proc/$pid/stat"; } # seconds, at the usual 100 ticks
rss() { awk '/VmRSS/ { printf "%d", $2 / 1000 }' "/proc/$pid/status"; }
start() { # data directory: until it answers
	"$bin" serve --data.dir "$1" --listen "127.0.0.1:$port" --admin.listen off >>"$dir/server.log" 2>&1 &
	pid=$!
	until "$bin" topic list "${to[@]}" >/dev/null 2>&1; do
		kill -0 $pid || { tail -3 "$dir/server.log" >&2; exit 1; }
		sleep 0.02
	done
}
stop() { kill "$1" $pid; wait $pid 2>/dev/null || true; }

start "$dir/load"
echo '== 16 partitions'
"$bin" bench produce "${to[@]}" -q --topic b16 --keep --partitions 16 --warmup $warm --duration $window --server-pids $pid --yardstick "$dir" --commit-bytes 64KiB,1MiB,4MiB
echo '== replay, page cache warm'
"$bin" bench consume "${to[@]}" -q --topic b16 --passes 2 --server-pids $pid
echo '== 1,000 partitions'
"$bin" bench produce "${to[@]}" -q --topic b1000 --keep --partitions 1000 --warmup $warm --duration $window --server-pids $pid
echo '== one record outstanding'
"$bin" bench latency "${to[@]}" -q --partitions 16 --warmup 3s --duration $window --server-pids $pid --yardstick "$dir"
echo '== restart after kill -9 under load, journal full'
"$bin" bench produce "${to[@]}" -q --topic b16 --keep --warmup 1s --duration 1h >/dev/null 2>&1 &
load=$!
sleep 15
stop -9
kill $load
wait $load 2>/dev/null || true
for i in 1 2 3; do
	t=$(now)
	start "$dir/load"
	echo "restart $i: $(since "$t") s until it answers, $(cpu) s of CPU, RSS $(rss) MB"
	stop -9
done
rm -rf "$dir/load"

for shape in '1 100000' '1000 100'; do
	read -r topics partitions <<<"$shape"
	echo "== 100,000 idle partitions: $topics topics of $partitions"
	start "$dir/idle"
	t=$(now)
	for i in $(seq 1 "$topics"); do echo "idle-$i"; done |
		xargs -n 1 -P 4 "$bin" topic create "${to[@]}" --partitions "$partitions" >/dev/null
	echo "created in $(since "$t") s"
	sleep 45 # until creating them is flushed, and retention has looked at each once, half a minute after the start
	a=$(cpu)
	sleep $idle
	echo "idle: $(awk -v a="$a" -v b="$(cpu)" -v s=$idle 'BEGIN { printf "%.2f", (b - a) / s * 100 }') % of a core over $idle s, RSS $(rss) MB"
	stop -9
	t=$(now)
	start "$dir/idle"
	echo "restart: $(since "$t") s until it answers, RSS $(rss) MB"
	stop -TERM
	rm -rf "$dir/idle"
done
