#!/bin/sh
# Prints the folder of yyjson's source (one .c, one .h), which consume.c decodes
# with.  Debian 12 has no package of it; its Python binding's source on PyPI
# brings it along.  Pinned, checked, kept in the cache of scripts/kafka.sh.
set -eu
name=yyjson-4.0.6
sum=fcd4dc15c1e39a30bf9fa85d56903029111506860fc3080ab0d81c6c6dacaa8c
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/$name
if [ ! -f "$dir/yyjson.c" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp"
	python3 -m pip download -q --no-binary :all: --no-deps -d "$tmp" "yyjson==${name#yyjson-}" >&2
	echo "$sum  $tmp/$name.tar.gz" | sha256sum -c --quiet >&2
	tar -xzf "$tmp/$name.tar.gz" -C "$tmp" --strip-components=2 "$name/yyjson/yyjson.c" "$name/yyjson/yyjson.h"
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir"
