#!/bin/sh
# demo.sh [stop]
#
# Builds, starts a private PostgreSQL with the extension, feeds a click stream
# and shows a continuous view change for half a minute.  The server stays; "make
# demo-stop" ends it.
#
#   KAFKA=1     the clicks come through a real Kafka broker
#   KINESIS=1   an application of Kinesis Data Analytics: the clicks come through a
#               Kinesis stream (an emulator), results leave to another one and to Kafka
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
	for f in feeder kafka kinesis; do
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

if [ -n "${KINESIS:-}" ]; then source=kinesis; elif [ -n "${KAFKA:-}" ]; then source=kafka; else source=inserts; fi
case $source in
kinesis) "$here/scripts/setup.sh" demo kafka kinesis ;;
kafka) "$here/scripts/setup.sh" demo kafka ;;
inserts) "$here/scripts/setup.sh" demo ;;
esac
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

# free_port FROM: the first one from there on that nobody uses
free_port() {
	p=$1
	while port_used "$p"; do p=$((p + 1)); done
	echo "$p"
}
# start NAME COMMAND…: in a session of its own, and without our output
start() {
	name=$1
	shift
	(cd / && exec setsid ${server_user:+runuser -u "$server_user" --} "$@") >"$dir/$name.log" 2>&1 </dev/null &
	echo $! >"$dir/$name.pid"
}
# await NAME COMMAND…: until it answers
await() {
	name=$1
	shift
	for i in $(seq 300); do
		"$@" >/dev/null 2>&1 && return
		kill -0 "$(cat "$dir/$name.pid")" 2>/dev/null || break
		sleep 0.3
	done
	echo "$name does not start; see $dir/$name.log"
	exit 1
}
start_kafka() {
	kafka_port=$(free_port $((port + 1000)))
	echo "Starting a Kafka broker on port $kafka_port …"
	mkdir "$dir/kafka"
	printf 'auto.create.topics.enable=true\nnum.partitions=4\n' >"$dir/kafka/extra.properties"
	[ -z "$server_user" ] || chown -R "$server_user" "$dir/kafka"
	KDA_CACHE=$(dirname "$("$here/scripts/kafka.sh" jars)")
	export KDA_CACHE
	start kafka "$dir/build/scripts/kafka.sh" start "$dir/kafka" "$kafka_port"
	await kafka kcat -b "127.0.0.1:$kafka_port" -L -m 1
}
start_kinesis() {
	parts=$("$here/scripts/kinesis_parts.sh")
	kinesis_port=$(free_port $((port + 2000)))
	tls_port=$(free_port $((kinesis_port + 1)))
	echo "Starting an emulator of Kinesis on port $kinesis_port …"
	start kinesis env KINESIS_MOCK_CERT_PATH="$parts/node_modules/kinesis-local/server.json" KINESIS_MOCK_PLAIN_PORT="$kinesis_port" \
		KINESIS_MOCK_TLS_PORT="$tls_port" INITIALIZE_STREAMS="evt-001:2:ap-northeast-2,cnt-1m:1:ap-northeast-2" node "$parts/node_modules/kinesis-local/main.js"
	await kinesis port_used "$kinesis_port"
}
view="CREATE CONTINUOUS VIEW clicks_10s AS
SELECT country, count(*) AS clicks, count(*) FILTER (WHERE action = 'purchase') AS purchases, sum(value) AS revenue
FROM clicks
WINDOWED BY TUMBLING (INTERVAL '10' SECOND)
GROUP BY country;"
feed="insert 400 clicks"
case $source in
inserts)
	setup="CREATE EXTENSION kda_stream;

CREATE STREAM clicks (rowtime timestamptz, user_id text, action text, page text, country text, value int)
  OPTIONS (watermark '1 second');

$view"
	;;
kafka)
	start_kafka
	setup="CREATE EXTENSION kda_stream;

CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" '127.0.0.1:$kafka_port');
CREATE STREAM clicks (rowtime timestamptz OPTIONS (path '\$.timestamp'), user_id text, action text, page text, country text, value int)
  SERVER msk OPTIONS (topic 'clicks', start 'earliest', watermark '1 second');

$view"
	feed="json 400"
	;;
kinesis)
	start_kafka
	start_kinesis
	# topics are made by whoever administers the broker
	kcat -b "127.0.0.1:$kafka_port" -L -t trend-5m >/dev/null 2>&1
	setup="CREATE EXTENSION kda_stream;

CREATE SERVER seoul TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'ap-northeast-2', endpoint 'http://127.0.0.1:$kinesis_port');
CREATE USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (access_key_id 'AKIDEMO', secret_access_key 'demo');
CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" '127.0.0.1:$kafka_port');

-- what comes in: JSON records of a Kinesis stream
CREATE OR REPLACE STREAM \"evt_001\" (
  ROWTIME timestamptz OPTIONS (path '\$.timestamp'),
  user_id VARCHAR(64), action VARCHAR(20), page VARCHAR(256), country VARCHAR(8), value INTEGER
) SERVER seoul OPTIONS (stream 'evt-001', start 'earliest', watermark '15 seconds');

-- what goes out: to a Kinesis stream, and to a Kafka topic
CREATE OR REPLACE STREAM \"s_cnt_1m\" (country VARCHAR(8), action VARCHAR(20), cnt BIGINT)
  SERVER seoul OPTIONS (stream 'cnt-1m', key 'country');
CREATE OR REPLACE STREAM \"s_trend_5m\" (country VARCHAR(8), action VARCHAR(20), cnt BIGINT)
  SERVER msk OPTIONS (topic 'trend-5m', key 'country');

CREATE OR REPLACE PUMP \"p_cnt_1m\" AS
INSERT INTO \"s_cnt_1m\"
SELECT country, action, COUNT(*) AS cnt
FROM \"evt_001\"
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)
GROUP BY country, action;

CREATE OR REPLACE PUMP \"p_trend_5m\" AS
INSERT INTO \"s_trend_5m\"
SELECT country, action, COUNT(*) AS cnt
FROM \"evt_001\"
WINDOWED BY SLIDING (INTERVAL '5' MINUTE, INTERVAL '1' MINUTE)
GROUP BY country, action;

-- and to look at
CREATE CONTINUOUS VIEW clicks_1m AS
SELECT country, count(*) AS clicks, count(*) FILTER (WHERE action = 'purchase') AS purchases, sum(value) AS revenue
FROM \"evt_001\"
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)
GROUP BY country;

-- the shop, which writes the events: another stream over the same Kinesis stream
CREATE STREAM shop (\"timestamp\" timestamptz, user_id text, action text, page text, country text, value int)
  SERVER seoul OPTIONS (stream 'evt-001', key 'user_id', sequence_key '');"
	feed="insert 40 shop 12"
	;;
esac
if [ $source = kinesis ]; then stream='"evt_001"' view=clicks_1m; else stream=clicks view=clicks_10s; fi
query="SELECT to_char(window_start, 'HH24:MI:SS') AS window,
       CASE WHEN window_end > kda.watermark('$stream') THEN 'open' ELSE 'closed' END AS state,
       country, clicks, purchases, revenue
FROM $view ORDER BY window_start DESC, country LIMIT 10;"
printf '\n%s\n\n' "$setup"
printf '%s\n' "$setup" | ask -v ON_ERROR_STOP=1

# the click stream, in a session of its own
if [ $source = kafka ]; then
	setsid sh -c "'$here/scripts/clicks.pl' $feed | kcat -b 127.0.0.1:$kafka_port -P -t clicks" >/dev/null 2>&1 </dev/null &
else
	setsid sh -c "'$here/scripts/clicks.pl' $feed | '$bindir/psql' -X -q -h 127.0.0.1 -p $port -U postgres" >/dev/null 2>&1 </dev/null &
fi
echo $! >"$dir/feeder.pid"

if [ $source = kinesis ]; then
	echo "The shop's last hour comes in now, twelve times as fast as it was.  For half a minute, the same SELECT again and again:"
else
	echo "About 400 clicks a second come in now.  For half a minute, the same SELECT again and again:"
fi
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
closed=$(echo "SELECT count(*) FROM $view WHERE clicks > 0 AND window_end <= kda.watermark('$stream')" | ask -At)
[ "$closed" -gt 0 ] || { echo "The view is empty; see $dir/log"; exit 1; }
if [ $source = kinesis ]; then
	# and if both outputs have got something
	left="SELECT 'Kinesis, cnt-1m' AS \"to\", data FROM (SELECT convert_from(data, 'UTF8') AS data FROM kda.sample('\"s_cnt_1m\"', 4)) k
UNION ALL
SELECT 'Kafka, trend-5m', data FROM (SELECT convert_from(data, 'UTF8') AS data FROM kda.sample('\"s_trend_5m\"', 4)) k;"
	printf '\nWhat has left, read back from there:\n\n%s\n\n' "$left"
	printf '%s\n' "$left" | ask -P footer=off
	echo "SELECT output, server, state, pending, delivered, failed FROM kda.outputs;" | ask -P footer=off
	sent=$(echo "SELECT count(*) FROM kda.outputs WHERE delivered > 0" | ask -At)
	[ "$sent" = 3 ] || { echo "An output has delivered nothing; see $dir/log"; exit 1; }
fi
client=psql
command -v psql >/dev/null || client=$bindir/psql
cat <<END

The server goes on, and so do the clicks.  Look for yourself:

  PGPASSWORD=$PGPASSWORD $client -h 127.0.0.1 -p $port -U postgres

  SELECT * FROM $view ORDER BY window_start DESC LIMIT 10;
  SELECT * FROM kda.streams;      SELECT * FROM kda.queries;      SELECT * FROM kda.workers;

Stop it with:  make demo-stop
END
