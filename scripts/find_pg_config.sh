#!/bin/sh
# Prints the pg_config to build with: the newest packaged PostgreSQL of 15 to
# 18 that has its server headers, else whatever "pg_config" is in the PATH.
for v in 18 17 16 15; do
	c=/usr/lib/postgresql/$v/bin/pg_config
	if [ -x "$c" ] && [ -f "$("$c" --includedir-server)/postgres.h" ]; then
		echo "$c"
		exit 0
	fi
done
echo pg_config
