/*-------------------------------------------------------------------------
 *
 * announce.c
 *	  Option notify 'channel': whoever LISTENs to the channel hears of each row
 *	  that is written into the stream, without a broker.
 *
 * The payload is a JSON object of the columns of option key, or of all of them.
 * NOTIFY is transactional: it leaves with the commit, and what is the same
 * twice in a transaction leaves once.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "commands/async.h"
#include "format/encode.h"
#include "miscadmin.h"
#include "stream/announce.h"
#include "utils/memutils.h"

/* Core takes fewer than 8000 bytes (NOTIFY_PAYLOAD_MAX_LENGTH), on pages as small as they can be. */
#define MAX_PAYLOAD	(Min(BLCKSZ, 8192) - NAMEDATALEN - 128)

struct KdaAnnouncer
{
	const KdaStreamOptions *options;
	KdaEncoder *encoder;
	StringInfoData payload;
	MemoryContext scratch;
};

KdaAnnouncer *
kda_announce_begin(TupleDesc desc, const KdaStreamOptions *options)
{
	KdaAnnouncer *a;
	KdaStreamOptions *json;
	Bitmapset  *columns = NULL;

	if (options->notify == NULL)
		return NULL;
	a = palloc0(sizeof(KdaAnnouncer));
	a->options = options;
	json = palloc(sizeof(KdaStreamOptions));
	*json = *options;
	json->format = KDA_FORMAT_JSON;
	for (int i = 0; i < options->nkeys; i++)
		columns = bms_add_member(columns, options->keys[i]);
	a->encoder = kda_encoder_create(CurrentMemoryContext, desc, json, columns);
	a->scratch = AllocSetContextCreate(CurrentMemoryContext, "kda announce", ALLOCSET_SMALL_SIZES);
	initStringInfo(&a->payload);
	return a;
}

void
kda_announce(KdaAnnouncer *a, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(a->scratch);
	Oid			userid;
	int			sec_context;

	resetStringInfo(&a->payload);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(a->options->owner, sec_context | SECURITY_RESTRICTED_OPERATION | SECURITY_LOCAL_USERID_CHANGE);
	kda_encode(a->encoder, slot, &a->payload);
	SetUserIdAndSecContext(userid, sec_context);
	/* that something has come is more than nothing */
	Async_Notify(a->options->notify, a->payload.len > MAX_PAYLOAD ? "{}" : a->payload.data);
	MemoryContextSwitchTo(old);
	MemoryContextReset(a->scratch);
}
