#!/bin/sh
# demo.sh [stop]
#
# Builds, starts a private PostgreSQL with the extension, feeds a click stream
# (KAFKA=1: through a real Kafka broker) and shows a continuous view change for
# half a minute.  The server stays; "make demo-stop" ends it.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
mark=$here/.demo				# holds the name of the running demo's folder

# root runs the server as somebody else
server_user=
as_server_user() {
	if [ -n "$server_user" ]; then (cd / && exec runuser -u "$server_user" -- "$@"); else (cd / && exec "$@"); fi
}
# does something listen there?
port_used() { perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => shift, Timeout => 1)' "$1"; }

stop() {
	[ -f "$mark" ] || return 0
	old=$(cat "$mark")
	case $old in */kda_demo.??????) ;; *) return 0 ;; esac
	for f in feeder kafka; do
		[ -f "$old/$f.pid" ] || continue
		# the whole process group, and not longer than ten seconds
		group=-$(cat "$old/$f.pid")
		for signal in TERM 0 0 0 0 0 0 0 0 0 0 KILL; do
			kill -s $signal -- "$group" 2>/dev/null || break
			sleep $([ $signal = TERM ] && echo 0.2 || echo 1)
		done
	done
	if [ -f "$old/data/postmaster.pid" ]; then
		if [ "$(id -u)" = 0 ]; then server_user=$(stat -c %U "$old/data"); fi
		as_server_user "$(cat "$old/bindir")/pg_ctl" -D "$old/data" -m fast -w stop >/dev/null || true
	fi
	rm -rf "$old" "$mark"
}

if [ "${1:-}" = stop ]; then
	stop
	echo "The demo is stopped and its files are removed."
	exit 0
fi

if [ -n "${KAFKA:-}" ]; then "$here/scripts/setup.sh" demo kafka; else "$here/scripts/setup.sh" demo; fi
stop
server_user=
if [ "$(id -u)" = 0 ]; then
	server_user=postgres
	id postgres >/dev/null 2>&1 || useradd --system postgres
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/kda_demo.XXXXXX")
echo "$dir" >"$mark"
mkdir "$dir/build"
chmod 755 "$dir"

pg_config=$("$here/scripts/find_pg_config.sh")
echo "Building with $("$pg_config" --version) …"
cp -R "$here/Makefile" "$here/kda_stream.control" "$here/src" "$here/sql" "$here/scripts" "$dir/build/"
find "$dir/build" -name '*.o' -delete
make -s -C "$dir/build" -j"$(nproc)" PG_CONFIG="$pg_config" >"$dir/make.log" 2>&1 || { tail -20 "$dir/make.log"; exit 1; }
bindir=$("$dir/build/scripts/stage.sh" "$dir/pg" "$pg_config" "$dir/build")
echo "$bindir" >"$dir/bindir"

# a port that is free now, and a password: others may use this machine, too
port=15432	# below those that the kernel gives away
while port_used $port; do port=$((port + 1)); done
PGPASSWORD=$(od -An -N9 -tx1 /dev/urandom | tr -d ' \n')
export PGPASSWORD
(umask 077 && echo "$PGPASSWORD" >"$dir/password")
[ -z "$server_user" ] || chown -R "$server_user" "$dir"
as_server_user "$bindir/initdb" -D "$dir/data" -U postgres -A scram-sha-256 --pwfile="$dir/password" --no-sync -E UTF8 --locale=C.UTF-8 >/dev/null
as_server_user sh -c "cat >>'$dir/data/postgresql.conf'" <<END
shared_preload_libraries = 'kda_stream'
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = $port
timezone = 'UTC'
END
as_server_user "$bindir/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null || { tail -20 "$dir/log"; exit 1; }
ask() { "$bindir/psql" -X -q -h 127.0.0.1 -p "$port" -U postgres "$@"; }

columns="rowtime timestamptz%s, user_id text, action text, page text, country text, value int"
if [ -n "${KAFKA:-}" ]; then
	kafka_port=$((port + 1000))
	while port_used $kafka_port; do kafka_port=$((kafka_port + 1)); done
	echo "Starting a Kafka broker on port $kafka_port …"
	mkdir "$dir/kafka"
	printf 'auto.create.topics.enable=true\nnum.partitions=4\n' >"$dir/kafka/extra.properties"
	[ -z "$server_user" ] || chown -R "$server_user" "$dir/kafka"
	KDA_CACHE=$(dirname "$("$here/scripts/kafka.sh" jars)")
	export KDA_CACHE
	# in a session of its own, and without our output
	(cd / && exec setsid ${server_user:+runuser -u "$server_user" --} "$dir/build/scripts/kafka.sh" start "$dir/kafka" "$kafka_port") >"$dir/kafka.log" 2>&1 </dev/null &
	echo $! >"$dir/kafka.pid"
	for i in $(seq 300); do
		kcat -b 127.0.0.1:$kafka_port -L -m 1 >/dev/null 2>&1 && break
		kill -0 "$(cat "$dir/kafka.pid")" 2>/dev/null || break
		sleep 0.3
	done
	kcat -b 127.0.0.1:$kafka_port -L -m 5 >/dev/null 2>&1 || { echo "the broker does not start; see $dir/kafka.log"; exit 1; }
	where="SERVER msk OPTIONS (topic 'clicks', start 'earliest', watermark '1 second')"
	path=" OPTIONS (path '\$.timestamp')"
	server="CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" '127.0.0.1:$kafka_port');
"
else
	where="OPTIONS (watermark '1 second')"
	path=
	server=
fi
setup=$(cat <<END
CREATE EXTENSION kda_stream;

${server}CREATE STREAM clicks ($(printf "$columns" "$path"))
  $where;

CREATE CONTINUOUS VIEW clicks_10s AS
SELECT country, count(*) AS clicks, count(*) FILTER (WHERE action = 'purchase') AS purchases, sum(value) AS revenue
FROM clicks
WINDOWED BY TUMBLING (INTERVAL '10' SECOND)
GROUP BY country;
END
)
query="SELECT to_char(window_start, 'HH24:MI:SS') AS window,
       CASE WHEN window_end > kda.watermark('clicks') THEN 'open' ELSE 'closed' END AS state,
       country, clicks, purchases, revenue
FROM clicks_10s ORDER BY window_start DESC, country LIMIT 10;"
printf '\n%s\n\n' "$setup"
printf '%s\n' "$setup" | ask -v ON_ERROR_STOP=1

# the click stream, in a session of its own
if [ -n "${KAFKA:-}" ]; then
	setsid sh -c "'$here/scripts/clicks.pl' json 400 | kcat -b 127.0.0.1:$kafka_port -P -t clicks" >/dev/null 2>&1 </dev/null &
else
	setsid sh -c "'$here/scripts/clicks.pl' insert 400 | '$bindir/psql' -X -q -h 127.0.0.1 -p $port -U postgres" >/dev/null 2>&1 </dev/null &
fi
echo $! >"$dir/feeder.pid"

echo "About 400 clicks a second come in now.  For half a minute, the same SELECT again and again:"
printf '\n%s\n' "$query"
frame=0
height=0
while [ $frame -lt 30 ]; do
	table=$(printf '%s\n' "$query" | ask -P footer=off)
	# on a terminal in place, else one below the other and half as often
	if [ -t 1 ]; then
		[ $height = 0 ] || printf '\033[%dA\033[J' "$height"
		frame=$((frame + 1))
		pause=1
	else
		frame=$((frame + 2))
		pause=2
	fi
	printf '\n-- %s\n%s\n' "$(date -u +%T)" "$table"
	height=$(($(printf '%s\n' "$table" | wc -l) + 2))
	sleep $pause
done

# it has worked if clicks were counted and windows were closed
closed=$(echo "SELECT count(*) FROM clicks_10s WHERE clicks > 0 AND window_end <= kda.watermark('clicks')" | ask -At)
[ "$closed" -gt 0 ] || { echo "The view is empty; see $dir/log"; exit 1; }
client=psql
command -v psql >/dev/null || client=$bindir/psql
cat <<END

The server goes on, and so do the clicks.  Look for yourself:

  PGPASSWORD=$PGPASSWORD $client -h 127.0.0.1 -p $port -U postgres

  SELECT * FROM clicks_10s ORDER BY window_start DESC LIMIT 10;
  SELECT * FROM kda.streams;      SELECT * FROM kda.queries;      SELECT * FROM kda.workers;

Stop it with:  make demo-stop
END
