#!/bin/sh
# aws_parts.sh: downloads what stands in for AWS in tests (PyPI's moto, an HTTP/2 server; pinned) and prints its folder
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
# some of it is compiled for one Python
dir=$cache/aws_parts-$( (cat "$here/aws_parts.txt"; /usr/bin/python3 --version) | sha256sum | cut -c1-12)
if [ ! -d "$dir" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp"
	/usr/bin/python3 -m pip --disable-pip-version-check -q install --no-deps --only-binary :all: --no-warn-script-location \
		--target "$tmp" -r "$here/aws_parts.txt" >&2 2>/dev/null
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir"
