#!/bin/sh
# indent.sh FILE…
#
# Brings C files into core's form in place: pg_bsd_indent (Debian's package
# pg-bsd-indent) with our typedefs.list, core's types and what core's own
# pgindent does before and after it.  Look at the result (git diff): it is a
# helper, not a judge.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { echo "usage: indent.sh FILE…" >&2; exit 2; }
command -v pg_bsd_indent >/dev/null || { echo "indent.sh: apt-get install pg-bsd-indent" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
server=$("$("$here/find_pg_config.sh")" --includedir-server)
{
	"$here/typedefs.pl"
	find "$server" -name '*.h' -exec "$here/typedefs.pl" {} +
	"$here/typedefs.pl" /usr/include/librdkafka/rdkafka.h /usr/include/*/curl/*.h
	printf '%s\n' bool size_t ssize_t intptr_t uintptr_t pid_t va_list sigset_t pthread_t pthread_mutex_t pthread_cond_t
} | sort -u >"$work/typedefs"

for file in "$@"; do
	# the tool takes the byte 0x80, part of "…", for a mark of its own
	perl -0pe 's!\x80!\xff!g; s!/\* *---!/*---X_X!g; s!\bpg_attribute_noreturn\(\)!pg_attribute_noreturnX_X!g' "$file" |
		pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l119 -lp -lpl -nip -npro -sac -tpg -ts4 \
			-U"$work/typedefs" 2>"$work/errors" |
		perl -0pe 's!\xff!\x80!g; s!/\*---X_X!/*---!g; s!\bpg_attribute_noreturnX_X!pg_attribute_noreturn()!g; s!^([A-Za-z_]\S*)[ \t]+\*$!$1 *!gm' >"$work/out"
	if [ -s "$work/errors" ]; then echo "$file:" >&2; cat "$work/errors" >&2; fi
	[ -s "$work/out" ] && cat "$work/out" >"$file"
done
