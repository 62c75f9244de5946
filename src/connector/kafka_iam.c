/*-------------------------------------------------------------------------
 *
 * kafka_iam.c
 *	  Makes tokens for Amazon MSK from the keys of a server and a user, and the
 *	  next one long before the last one ends.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_iam.h"

#include <time.h>

#include "commands/defrem.h"
#include "connector/aws_access.h"
#include "connector/threads.h"
#include "utils/memutils.h"

#define RENEW_MS	(KDA_MSK_TOKEN_S * 1000 / 3)	/* a token's age when the next one is made */
#define AGAIN_MS	500			/* there are no keys: they are asked for again */

struct KdaKafkaIam
{
	MemoryContext context;		/* holds the access */
	KdaAwsAccess *access;
	KdaKafkaToken *token;
	Oid			serverid;
	Oid			userid;
	int			wake_fd;
	int64		due_ms;			/* monotonic */
};

bool
kda_kafka_iam_wanted(List *server_options)
{
	ListCell   *lc;

	foreach(lc, server_options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if ((strcmp(def->defname, "sasl.mechanism") == 0 || strcmp(def->defname, "sasl.mechanisms") == 0) &&
			def->arg && strcmp(defGetString(def), KDA_MSK_IAM) == 0)
			return true;
	}
	return false;
}

KdaKafkaIam *
kda_kafka_iam_open(Oid serverid, Oid userid, int wake_fd, KdaKafkaToken *token)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "kda kafka keys", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KdaKafkaIam *iam = palloc0(sizeof(KdaKafkaIam));

	iam->context = context;
	iam->token = token;
	iam->serverid = serverid;
	iam->userid = userid;
	iam->wake_fd = wake_fd;
	iam->access = kda_aws_access(serverid, userid, wake_fd);
	MemoryContextSwitchTo(old);
	kda_kafka_iam_service(iam);
	return iam;
}

void
kda_kafka_iam_service(KdaKafkaIam *iam)
{
	KdaAwsKeys	keys;
	int64		now = kda_monotonic_ms();

	if (iam == NULL || now < iam->due_ms)
		return;
	switch (kda_credentials_keys(iam->access->credentials, &keys))
	{
		case KDA_KEYS_READY:
			if (kda_kafka_token_make(iam->token, iam->access->region, &keys, time(NULL)))
				iam->due_ms = now + RENEW_MS;
			break;
		case KDA_KEYS_COMING:
			break;				/* their answer wakes the worker */
		case KDA_KEYS_NONE:
			kda_kafka_token_fail(iam->token, kda_credentials_error(iam->access->credentials));
			iam->due_ms = now + AGAIN_MS;
			break;
	}
	kda_secret_clean_stack();
}

bool
kda_kafka_iam_has_changed(KdaKafkaIam *iam)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda kafka keys", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	bool		changed = kda_aws_access(iam->serverid, iam->userid, iam->wake_fd) != iam->access;

	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return changed;
}

void
kda_kafka_iam_close(KdaKafkaIam *iam)
{
	if (iam)
		MemoryContextDelete(iam->context);
}
