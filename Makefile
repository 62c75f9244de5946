# kda_stream: continuous queries for PostgreSQL.
#
#   make test, make demo    do everything on a fresh machine (scripts/)
#   make, make install, make installcheck    plain PGXS, PG_CONFIG=… chooses the server

EXTENSION   = kda_stream
MODULE_big  = kda_stream
OBJS        = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
DATA        = $(wildcard sql/kda_stream--*.sql)
REGRESS     = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --outputdir=.regress

# The goals that install what is missing work before pg_config is there.
SCRIPTED    = test test-long test-matrix test-asan demo demo-stop bench

ifneq ($(filter $(SCRIPTED),$(MAKECMDGOALS)),)

.PHONY: $(SCRIPTED)
test:
	@test/run
test-long:
	@test/run --long
test-matrix:
	@scripts/matrix.sh
test-asan:
	@test/run --asan
demo:
	@KAFKA='$(KAFKA)' KINESIS='$(KINESIS)' scripts/demo.sh
demo-stop:
	@scripts/demo.sh stop
bench:
	@bench/run

else

PG_CONFIG  ?= $(shell scripts/find_pg_config.sh)
# no bitcode: it would need the very clang that the server was built with
override with_llvm = no
PG_CPPFLAGS = -Isrc -I$(srcdir)/src
# core's headers trip these
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
              -Wno-declaration-after-statement -fvisibility=hidden $(KDA_CFLAGS)
SHLIB_LINK  = -lrdkafka -lcurl -lssl -lcrypto -lz -llz4 $(KDA_LDFLAGS)
EXTRA_CLEAN = .regress

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Every header may matter to every file: the house is small.
$(OBJS): $(wildcard src/*.h src/*/*.h)

endif
