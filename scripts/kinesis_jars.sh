#!/bin/sh
# kinesis_jars.sh: downloads AWS's own libraries for writing and reading Kinesis (KPL, KCL; pinned, checked), judges in
# long test runs, and prints their folder.  Programs over them are in test/kinesis; java runs those from their source.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/kinesis_jars-$(sha256sum <"$here/kinesis.jars" | cut -c1-12)
# what root has downloaded is good for all
shared=/var/cache/kda_stream/$(basename "$dir")
if [ -d "$shared" ]; then dir=$shared; fi
if [ ! -d "$dir" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp"
	base=${MAVEN_CENTRAL:-https://repo1.maven.org/maven2}
	while read -r sum path; do
		echo "url = $base/$path"
		echo "output = $tmp/$(basename "$path")"
	done <"$here/kinesis.jars" | curl -sSf --retry 5 --retry-connrefused -Z --parallel-max 8 -K - >&2
	(cd "$tmp" && while read -r sum path; do echo "$sum  $(basename "$path")"; done <"$here/kinesis.jars" | sha256sum -c --quiet >&2)
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir"
