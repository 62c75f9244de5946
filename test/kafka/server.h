/*-------------------------------------------------------------------------
 *
 * server.h
 *	  What the Kafka sink needs of a server, for programs that are none: the
 *	  clock, errors (they end the program), options, keys of AWS's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_TEST_SERVER_H
#define KDA_TEST_SERVER_H

#include "kda_stream.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "commands/defrem.h"
#include "connector/kafka.h"
#include "connector/kafka_iam.h"
#include "connector/threads.h"
#include "nodes/parsenodes.h"

#define MAX_OPTIONS 16

/*---- what a server would give */

static int64 clock_ahead_us = 0;

TimestampTz
GetCurrentTimestamp(void)
{
	return kda_monotonic_ms() * 1000 + clock_ahead_us;
}

bool
errstart(int elevel, const char *domain)
{
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return true;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	exit(3);
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	return 0;
}

char *
defGetString(DefElem *def)
{
	return (char *) def->arg;
}

sigjmp_buf *PG_exception_stack = NULL;
ErrorContextCallback *error_context_stack = NULL;

void
pg_re_throw(void)
{
	exit(3);
}

/*---- keys of AWS's */

static char *region;
static KdaAwsKeys keys;
static bool keys_are_new;

static inline void
free_keys(void)
{
	free(region);
	free(unconstify(char *, keys.access_key_id));
	free(unconstify(char *, keys.secret_access_key));
	free(unconstify(char *, keys.session_token));
}

bool
kda_kafka_iam_wanted(List *server_options)
{
	ListCell   *lc;

	foreach(lc, server_options)
		if (strcmp((char *) ((DefElem *) lfirst(lc))->arg, KDA_MSK_IAM) == 0)
			return true;
	return false;
}

void
kda_kafka_iam_service(KdaKafkaIam *iam)
{
	if (iam == NULL || !keys_are_new)
		return;
	keys_are_new = !kda_kafka_token_make((KdaKafkaToken *) iam, region, &keys, time(NULL));
}

KdaKafkaIam *
kda_kafka_iam_open(Oid serverid, Oid userid, int wake_fd, KdaKafkaToken *token)
{
	kda_kafka_iam_service((KdaKafkaIam *) token);
	return (KdaKafkaIam *) token;
}

void
kda_kafka_iam_close(KdaKafkaIam *iam)
{
}

bool
kda_kafka_property_fits(const char *name, bool producer)
{
	return producer || strncmp(name, "transaction.", 12) != 0;
}

/*---- the options of a server */

static struct
{
	List		list;
	ListCell	cells[MAX_OPTIONS];
}			options = {{T_List}};

static inline void
add_option(char *name, char *value)
{
	DefElem    *def = calloc(1, sizeof(DefElem));

	def->type = T_DefElem;
	def->defname = name;
	def->arg = (Node *) value;
	options.list.elements = options.cells;
	options.cells[options.list.length++].ptr_value = def;
}

#endif							/* KDA_TEST_SERVER_H */
