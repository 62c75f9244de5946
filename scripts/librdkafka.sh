#!/bin/sh
# Prints the path of a librdkafka that can do SCRAM with the tests' broker, or
# nothing if the system's can.  Before 2.6.1 (Debian 12 has 2.0.2) it repeats its
# nonce, which brokers refuse since CVE-2024-56128 was fixed (Kafka 3.7.2, 3.8.1,
# 3.9, 4).  PyPI's wheel of confluent-kafka carries one.  Pinned, checked.
set -eu
if pkg-config --atleast-version=2.6.1 rdkafka || [ "$(uname -m)" != x86_64 ]; then
	exit 0
fi
version=2.8.0
sum=1a01feeac7f27bff079ad1a29f1cf1b149235a975d67d7de20c1935f44b14293
if [ -n "${KDA_CACHE:-}" ]; then cache=$KDA_CACHE
elif [ "$(id -u)" = 0 ]; then cache=/var/cache/kda_stream
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/kda_stream
fi
dir=$cache/librdkafka-$version
if [ ! -d "$dir" ]; then
	tmp=$dir.$$
	mkdir -p "$tmp"
	/usr/bin/python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
		--platform manylinux_2_28_x86_64 -d "$tmp" confluent-kafka==$version >&2
	echo "$sum  $(echo "$tmp"/*.whl)" | sha256sum -c --quiet >&2
	/usr/bin/python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
	mv "$tmp"/wheel/confluent_kafka.libs/librdkafka-*.so.1 "$tmp/librdkafka.so.1"
	rm -rf "$tmp/wheel" "$tmp"/*.whl
	chmod -R a+rX "$tmp"
	mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"	# another one was faster
fi
echo "$dir/librdkafka.so.1"
