#!/bin/sh
# kinesis_parts.sh: downloads what stands in for Kinesis in tests (npm's kinesis-local and kinesalite; all pinned and
# checked by scripts/kinesis_parts/package-lock.json) and prints its folder
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/kinesis_parts-$(sha256sum <"$here/kinesis_parts/package-lock.json" | cut -c1-12)
if [ ! -d "$dir" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp"
	cp "$here/kinesis_parts/package.json" "$here/kinesis_parts/package-lock.json" "$tmp/"
	(cd "$tmp" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --cache "$tmp/npm_cache" >&2)
	rm -rf "$tmp/npm_cache"
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir"
