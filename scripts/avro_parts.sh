#!/bin/sh
# avro_parts.sh: downloads what judges Avro in tests (Apache's avro-tools, the Apicurio registry; Maven, pinned, checked) and prints their folder
set -eu
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/avro-1

fetch() {
	path=$1 sum=$2
	curl -sSf --retry 5 --retry-connrefused -o "$tmp/$(basename "$path")" "${MAVEN_CENTRAL:-https://repo1.maven.org/maven2}/$path"
	echo "$sum  $tmp/$(basename "$path")" | sha256sum -c --quiet >&2
}

if [ ! -d "$dir" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp/registry"
	fetch org/apache/avro/avro-tools/1.11.4/avro-tools-1.11.4.jar 19c53bf74b54c09ba1f682e249b3e07357cc5e23c878b7257cde4909d13f5282
	fetch io/apicurio/apicurio-registry-app/2.6.13.Final/apicurio-registry-app-2.6.13.Final-all.tar.gz 3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba
	tar -xzf "$tmp/apicurio-registry-app-2.6.13.Final-all.tar.gz" -C "$tmp/registry"
	rm "$tmp/apicurio-registry-app-2.6.13.Final-all.tar.gz"
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir"
