#!/bin/sh
# botocore.sh: downloads AWS's own signer for Python (PyPI's source package of botocore, pinned, checked; it carries
# AWS's public vectors of signature version 4) and what it needs, and prints their folder
set -eu
version=1.43.11
sum=d7d479cc2809ec2728f2898521003adfb79bfe6a4615c59dfd222ec52b0cee6b
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/botocore-$version
if [ ! -d "$dir" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp"
	pip="/usr/bin/python3 -m pip --disable-pip-version-check -q"
	$pip download --no-deps --no-build-isolation --no-binary botocore -d "$tmp" botocore==$version >&2
	echo "$sum  $tmp/botocore-$version.tar.gz" | sha256sum -c --quiet >&2
	tar -xzf "$tmp/botocore-$version.tar.gz" -C "$tmp" --strip-components=1
	rm "$tmp/botocore-$version.tar.gz"
	$pip install --no-deps --no-warn-script-location --target "$tmp" jmespath==1.1.0 python-dateutil==2.9.0.post0 six==1.17.0 urllib3==2.6.3 >&2 2>/dev/null
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir"
