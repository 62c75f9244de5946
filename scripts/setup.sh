#!/bin/sh
# setup.sh [test|demo|kafka|bench|clang|asan|matrix]...
#
# Installs what is missing to build (always) and to do these: Debian packages, and
# for Kafka its jars into a cache folder.  Says in one line what it cannot do.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)

have() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

packages="gcc make pkg-config libc6-dev librdkafka-dev libcurl4-openssl-dev libssl-dev liblz4-dev zlib1g-dev"
jars=no
extensions=
for what in "$@"; do
	case $what in
	test) extensions="hll tdigest"; packages="$packages procps python3 python3-pytest python3-psycopg2 python3-confluent-kafka python3-pip openssl" ;;
	demo) packages="$packages perl" ;;
	clang) packages="$packages clang" ;;
	matrix) packages="$packages mmdebstrap python3-pip util-linux mount" ;;
	bench) packages="$packages python3-pip" ;;
	kafka) packages="$packages default-jdk-headless curl ca-certificates kcat"; jars=yes ;;
	esac
done

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
	missing=
	for p in $packages; do
		have "$p" || missing="$missing $p"
	done
	# a server of 15 to 18 with its headers: the one that is there, else the newest packaged
	pg=$("$here/scripts/find_pg_config.sh")
	if [ ! -x "$pg" ] || [ ! -x "$(dirname "$pg")/postgres" ]; then
		version=
		for try in 1 2; do
			for v in 18 17 16 15; do
				if apt-cache show "postgresql-server-dev-$v" >/dev/null 2>&1; then version=$v; break; fi
			done
			[ -n "$version" ] && break
			[ "$(id -u)" = 0 ] && apt-get -qq update || sudo -n apt-get -qq update || true
		done
		[ -n "$version" ] || { echo "setup: no package of PostgreSQL 15 to 18 to be found" >&2; exit 1; }
		missing="$missing postgresql-$version postgresql-server-dev-$version"
	fi
	# types and aggregates of other extensions, for tests
	[ -n "${version:-}" ] || version=$(echo "$pg" | sed -n 's:^/usr/lib/postgresql/\([0-9]*\)/.*:\1:p')
	for e in ${version:+$extensions}; do
		have "postgresql-$version-$e" || missing="$missing postgresql-$version-$e"
	done
	if [ -n "$missing" ]; then
		run=
		if [ "$(id -u)" != 0 ]; then
			if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
				run=sudo
			else
				echo "setup: these packages are missing and need root to be installed:$missing" >&2
				exit 1
			fi
		fi
		echo "setup: installing$missing" >&2
		# Debian's package would start a server of its own
		if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
			$run mkdir -p /etc/postgresql-common
			echo "create_main_cluster = false" | $run tee /etc/postgresql-common/createcluster.conf >/dev/null
		fi
		$run env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
		$run env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
			-o DPkg::Lock::Timeout=300 $missing >/dev/null
	fi
else
	pg=$("$here/scripts/find_pg_config.sh")
	command -v "$pg" >/dev/null || { echo "setup: pg_config of PostgreSQL 15 to 18 is missing (and librdkafka, libcurl, OpenSSL, liblz4, zlib with headers)" >&2; exit 1; }
fi

[ $jars = no ] || "$here/scripts/kafka.sh" jars >/dev/null
