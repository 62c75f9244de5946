#!/bin/sh
# kafka.sh jars            downloads the broker's jars (pinned, checked) and prints their folder
# kafka.sh start DIR PORT  runs a broker with its data in DIR in the foreground
#                          (PORT: plain; KAFKA_LISTENERS: further ones, "NAME://127.0.0.1:PORT,…",
#                          with what they need in DIR/extra.properties; KAFKA_FORMAT: options
#                          of the storage tool, as --add-scram …; KAFKA_CLASSPATH: further
#                          classes)
set -eu
here=$(cd "$(dirname "$0")" && pwd)

cache() {
	if [ -n "${KDA_CACHE:-}" ]; then echo "$KDA_CACHE"
	elif [ "$(id -u)" = 0 ]; then echo /var/cache/kda_stream
	else echo "${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream"
	fi
}

jars() {
	dir=$(cache)/kafka-4.1.0
	# what root has downloaded is good for all
	if [ -f /var/cache/kda_stream/kafka-4.1.0/complete ]; then dir=/var/cache/kda_stream/kafka-4.1.0; fi
	if [ ! -f "$dir/complete" ]; then
		tmp="$dir.$$"
		mkdir -p "$tmp"
		base=${MAVEN_CENTRAL:-https://repo1.maven.org/maven2}
		while read -r sum path; do
			echo "url = $base/$path"
			echo "output = $tmp/$(basename "$path")"
		done <"$here/kafka.jars" | curl -sSf --retry 5 --retry-connrefused -Z --parallel-max 8 -K - >&2
		(cd "$tmp" && while read -r sum path; do echo "$sum  $(basename "$path")"; done <"$here/kafka.jars" | sha256sum -c --quiet >&2)
		touch "$tmp/complete"
		chmod -R a+rX "$tmp"
		mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
	fi
	echo "$dir"
}

case $1 in
jars) jars ;;
start)
	dir=$2
	port=$3
	jars=$(jars)
	mkdir -p "$dir"
	if [ ! -f "$dir/server.properties" ]; then
		controller=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null || echo $((port + 1)))
		cat >"$dir/server.properties" <<-END
			process.roles=broker,controller
			node.id=1
			controller.quorum.voters=1@127.0.0.1:$controller
			listeners=PLAIN://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller${KAFKA_LISTENERS:+,$KAFKA_LISTENERS}
			advertised.listeners=PLAIN://127.0.0.1:$port${KAFKA_LISTENERS:+,$KAFKA_LISTENERS}
			inter.broker.listener.name=PLAIN
			controller.listener.names=CONTROLLER
			listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT
			log.dirs=$dir/data
			num.partitions=1
			offsets.topic.replication.factor=1
			transaction.state.log.replication.factor=1
			transaction.state.log.min.isr=1
			share.coordinator.state.topic.replication.factor=1
			share.coordinator.state.topic.min.isr=1
			group.initial.rebalance.delay.ms=0
			auto.create.topics.enable=false
			log.retention.ms=-1
			log.retention.check.interval.ms=1000
			log.segment.delete.delay.ms=100
			file.delete.delay.ms=100
		END
		[ ! -f "$dir/extra.properties" ] || cat "$dir/extra.properties" >>"$dir/server.properties"
	fi
	[ -d "$dir/data" ] || java -Xmx128m -cp "$jars/*" kafka.tools.StorageTool format -t 3Db5QLSqSZieL3rJBUUegA \
		-c "$dir/server.properties" ${KAFKA_FORMAT:-} >"$dir/format.log" 2>&1
	exec java -Xmx512m -Xms128m -XX:+UseSerialGC -cp "$jars/*${KAFKA_CLASSPATH:+:$KAFKA_CLASSPATH}" kafka.Kafka "$dir/server.properties"
	;;
*) echo "usage: kafka.sh jars | start DIR PORT" >&2; exit 2 ;;
esac
