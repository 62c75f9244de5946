#!/bin/sh
# flink.sh jars        downloads Apache Flink (pinned, checked) and prints its folder
# flink.sh sql FILE    runs a script of SQL in one process and prints what its SELECTs give
#
# Its jars are those of PyPI's apache-flink-libraries; the gateway that the SQL
# client needs comes from Maven.  A judge of results in long test runs.
set -eu
version=1.20.0

if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/flink-$version
# what root has downloaded is good for all
if [ -f "/var/cache/kda_stream/flink-$version/complete" ]; then dir=/var/cache/kda_stream/flink-$version; fi

jars() {
	if [ ! -f "$dir/complete" ]; then
		tmp=$dir.$$
		rm -rf "$tmp"
		mkdir -p "$tmp/conf"
		python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$tmp" "apache-flink-libraries==$version" >&2
		curl -sSf --retry 5 --retry-connrefused -o "$tmp/flink-sql-gateway-$version.jar" \
			"${MAVEN_CENTRAL:-https://repo1.maven.org/maven2}/org/apache/flink/flink-sql-gateway/$version/flink-sql-gateway-$version.jar"
		(cd "$tmp" && sha256sum -c --quiet >&2) <<-END
		808b381151c51d988c8fe5b5ae59d944d6e61d8193ee6832064f7ca14c88a583  apache-flink-libraries-$version.tar.gz
		ffcdcb52d9f847ff6dc49dd9c4a6f239767240c4f4d0a9eeecee33383af4ff0b  flink-sql-gateway-$version.jar
		END
		tar -xzf "$tmp/apache-flink-libraries-$version.tar.gz" -C "$tmp" --strip-components=2 \
			"apache-flink-libraries-$version/deps/lib" "apache-flink-libraries-$version/deps/opt"
		mv "$tmp/flink-sql-gateway-$version.jar" "$tmp/opt"
		rm "$tmp/apache-flink-libraries-$version.tar.gz"
		echo "parallelism.default: 1" >"$tmp/conf/config.yaml"
		touch "$tmp/complete"
		chmod -R a+rX "$tmp"
		mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
	fi
	echo "$dir"
}

sql() {
	opens=
	for package in lang lang.reflect net io nio text time util util.concurrent util.concurrent.atomic util.concurrent.locks; do
		opens="$opens --add-opens=java.base/java.$package=ALL-UNNAMED"
	done
	home=$(jars)
	# shellcheck disable=SC2086
	FLINK_CONF_DIR=$home/conf exec java -Xmx768m $opens --add-opens=java.base/sun.nio.ch=ALL-UNNAMED \
		-cp "$home/lib/*:$home/opt/*" org.apache.flink.table.client.SqlClient embedded -hist "$1.history" -f "$1"
}

case $1 in
jars) jars ;;
sql) sql "$2" ;;
esac
