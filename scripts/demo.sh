#!/bin/sh
# demo.sh [stop]
#
# Builds, starts a private PostgreSQL with the extension, feeds a click stream
# (KAFKA=1: through a real Kafka broker) and shows a continuous view change for
# half a minute.  The server stays; "make demo-stop" ends it.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
mark=$here/.demo
dir=${TMPDIR:-/tmp}/kda_demo.$(id -u).$(printf %s "$here" | cksum | cut -d' ' -f1)

stop() {
	for f in feeder kafka; do
		if [ -f "$dir/$f.pid" ]; then
			# the whole process group
			kill -TERM -- "-$(cat "$dir/$f.pid")" 2>/dev/null || true
			rm -f "$dir/$f.pid"
		fi
	done
	if [ -f "$dir/bindir" ] && [ -f "$dir/data/postmaster.pid" ]; then
		as_user "$(cat "$dir/bindir")/pg_ctl" -D "$dir/data" -m fast -w stop >/dev/null || true
	fi
}

user=
[ "$(id -u)" != 0 ] || user="runuser -u postgres --"
# does something listen there?
port_used() { perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => shift, Timeout => 1)' "$1"; }
as_user() { (cd / && $user "$@"); }

if [ "${1:-}" = stop ]; then
	stop
	rm -rf "$dir" "$mark"
	echo "The demo is stopped and its files are removed."
	exit 0
fi

if [ -n "${KAFKA:-}" ]; then "$here/scripts/setup.sh" demo kafka; else "$here/scripts/setup.sh" demo; fi
stop
rm -rf "$dir"
mkdir -p "$dir/build"
chmod 755 "$dir"
echo "$dir" >"$mark"
pg_config=$("$here/scripts/find_pg_config.sh")
echo "Building with $("$pg_config" --version) …"
cp -R "$here/Makefile" "$here/kda_stream.control" "$here/src" "$here/sql" "$here/scripts" "$dir/build/"
find "$dir/build" -name '*.o' -delete
make -s -C "$dir/build" -j"$(nproc)" PG_CONFIG="$pg_config" >"$dir/make.log" 2>&1 || { tail -20 "$dir/make.log"; exit 1; }
bindir=$("$dir/build/scripts/stage.sh" "$dir/pg" "$pg_config" "$dir/build")
echo "$bindir" >"$dir/bindir"
[ -z "$user" ] || chown -R postgres "$dir"

# a port that is free now
port=54320
while port_used $port; do port=$((port + 1)); done
as_user "$bindir/initdb" -D "$dir/data" -U postgres -A trust --no-sync -E UTF8 --locale=C.UTF-8 >/dev/null
as_user sh -c "cat >>'$dir/data/postgresql.conf'" <<END
shared_preload_libraries = 'kda_stream'
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
port = $port
timezone = 'UTC'
END
as_user "$bindir/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null
psql="$bindir/psql -X -q -h 127.0.0.1 -p $port -U postgres"

columns="rowtime timestamptz%s, user_id text, action text, page text, country text, value int"
if [ -n "${KAFKA:-}" ]; then
	kafka_port=$((port + 1000))
	while port_used $kafka_port; do kafka_port=$((kafka_port + 1)); done
	echo "Starting a Kafka broker on port $kafka_port …"
	mkdir "$dir/kafka"
	printf 'auto.create.topics.enable=true\nnum.partitions=4\n' >"$dir/kafka/extra.properties"
	[ -z "$user" ] || chown -R postgres "$dir/kafka"
	KDA_CACHE=$(dirname "$("$here/scripts/kafka.sh" jars)")
	export KDA_CACHE
	# in a session of its own, and without our output
	(cd / && exec setsid $user "$dir/build/scripts/kafka.sh" start "$dir/kafka" "$kafka_port") >"$dir/kafka.log" 2>&1 </dev/null &
	echo $! >"$dir/kafka.pid"
	for i in $(seq 100); do
		kcat -b 127.0.0.1:$kafka_port -L -m 1 >/dev/null 2>&1 && break
		sleep 0.3
	done
	kcat -b 127.0.0.1:$kafka_port -L -m 5 >/dev/null 2>&1 || { echo "the broker does not start; see $dir/kafka.log"; exit 1; }
	where="SERVER msk OPTIONS (topic 'clicks', start 'earliest', watermark '1 second')"
	path=" OPTIONS (path '\$.timestamp')"
	server="CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" '127.0.0.1:$kafka_port');"
else
	where="OPTIONS (watermark '1 second')"
	path=
	server=
fi
setup=$(cat <<END
CREATE EXTENSION kda_stream;
$server
CREATE STREAM clicks ($(printf "$columns" "$path")) $where;
CREATE CONTINUOUS VIEW clicks_10s AS
  SELECT country, count(*) AS clicks, count(*) FILTER (WHERE action = 'purchase') AS purchases, sum(value) AS revenue
  FROM clicks
  WINDOWED BY TUMBLING (INTERVAL '10' SECOND)
  GROUP BY country;
END
)
echo
echo "$setup"
echo
printf '%s\n' "$setup" | $psql -v ON_ERROR_STOP=1

# the click stream, in a session of its own
if [ -n "${KAFKA:-}" ]; then
	setsid sh -c "'$here/scripts/clicks.pl' json 400 | kcat -b 127.0.0.1:$kafka_port -P -t clicks" >/dev/null 2>&1 </dev/null &
else
	setsid sh -c "'$here/scripts/clicks.pl' insert 400 | $psql" >/dev/null 2>&1 </dev/null &
fi
echo $! >"$dir/feeder.pid"

query="SELECT to_char(window_start, 'HH24:MI:SS') AS window, country, clicks, purchases, revenue FROM clicks_10s ORDER BY window_start DESC, clicks DESC LIMIT 8"
for i in $(seq 15); do
	sleep 2
	echo "-- $(date +%T)  $query"
	printf '%s\n' "$query" | $psql
done

# it has worked if windows were closed and counted
printf '%s\n' "SELECT count(*) FROM clicks_10s WHERE clicks > 0" | $psql -At >"$dir/rows"
[ "$(cat "$dir/rows")" -gt 0 ] || { echo "The view is empty; see $dir/log"; exit 1; }
cat <<END
The server goes on, and so do the clicks.  Look for yourself:

  psql -h 127.0.0.1 -p $port -U postgres

  SELECT * FROM clicks_10s ORDER BY window_start DESC LIMIT 10;
  SELECT * FROM kda.streams;      SELECT * FROM kda.queries;      SELECT * FROM kda.workers;

Stop it with:  make demo-stop
END
