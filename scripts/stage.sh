#!/bin/sh
# stage.sh DIR PG_CONFIG [BUILD_DIR]
#
# Makes DIR a private PostgreSQL: the packaged one plus this extension, without
# touching the system.  PostgreSQL finds its own files relative to its binary,
# so the binaries are copied and everything else is linked.  Prints the folder
# of the binaries.
set -eu
dir=$1
pg_config=$2
here=$(cd "$(dirname "$0")/.." && pwd)
build=${3:-$here}

bindir=$("$pg_config" --bindir)
pkglibdir=$("$pg_config" --pkglibdir)
sharedir=$("$pg_config" --sharedir)

rm -rf "$dir"
mkdir -p "$dir$bindir" "$dir$pkglibdir" "$dir$sharedir/extension"
cp -L "$bindir"/* "$dir$bindir/"
for f in "$pkglibdir"/*; do
	ln -s "$f" "$dir$pkglibdir/"
done
for f in "$sharedir"/*; do
	[ "$(basename "$f")" = extension ] || ln -s "$f" "$dir$sharedir/"
done
for f in "$sharedir"/extension/*; do
	ln -s "$f" "$dir$sharedir/extension/"
done
rm -f "$dir$pkglibdir/kda_stream.so" "$dir$sharedir"/extension/kda_stream*
cp "$build/kda_stream.so" "$dir$pkglibdir/"
cp "$here/kda_stream.control" "$here"/sql/kda_stream--*.sql "$dir$sharedir/extension/"
chmod -R a+rX "$dir"
echo "$dir$bindir"
