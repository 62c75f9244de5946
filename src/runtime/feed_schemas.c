/*-------------------------------------------------------------------------
 *
 * feed_schemas.c
 *	  The schemas of an Avro stream whose records name them: asked for before
 *	  the transaction that decodes the records, which wait as long as one of
 *	  them is not known.
 *
 * What a registry has answered is kept in kda_storage.registered_schema, so
 * that a restart, another slot and a session that looks into the buffer need no
 * registry.  A number that the registry does not know refuses its records; it is
 * asked for again after a while.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "connector/registry.h"
#include "format/format.h"
#include "format/schemas.h"
#include "miscadmin.h"
#include "runtime/worker.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define ASK_AGAIN_US	(60 * USECS_PER_SEC)	/* for a number that the registry did not know */
#define MAX_QUESTIONS	64		/* under way at once */

struct KdaFeedSchemas
{
	MemoryContext context;		/* of the registry and its questions; NULL: none is open */
	KdaRegistry *registry;
	uint64		options;		/* kda_options_generation when it was opened */
	KdaSchemaId ids[MAX_QUESTIONS];
	KdaRegistryQuestion *questions[MAX_QUESTIONS];
	int			n;
	int			looked_at;		/* so many of the records are of known schemas */
};

/* Servers or user mappings have changed so often. */
uint64		kda_options_generation = 0;

void
kda_feed_schemas_close(KdaFeed *feed)
{
	KdaFeedSchemas *s = feed->schemas;

	if (s == NULL || s->context == NULL)
		return;
	for (int i = 0; i < s->n; i++)
		kda_registry_forget(s->questions[i]);
	MemoryContextDelete(s->context);
	s->context = NULL;
	s->registry = NULL;
	s->n = 0;
}

static bool
is_asked(KdaFeedSchemas *s, const KdaSchemaId *id)
{
	for (int i = 0; i < s->n; i++)
		if (memcmp(&s->ids[i], id, sizeof(*id)) == 0)
			return true;
	return false;
}

/* In a transaction. */
static void
ask(KdaFeed *feed, KdaFeedSchemas *s, const KdaSchemaId *id)
{
	MemoryContext old;

	if (s->n == MAX_QUESTIONS)
		return;
	if (s->context == NULL)
	{
		s->context = AllocSetContextCreate(feed->stream->context, "kda schema registry", ALLOCSET_DEFAULT_SIZES);
		s->options = kda_options_generation;
		old = MemoryContextSwitchTo(s->context);
		s->registry = kda_registry_open(feed->stream->options->schema_registry, feed->stream->owner, kda_worker->wake_write);
		MemoryContextSwitchTo(old);
	}
	s->ids[s->n] = *id;
	s->questions[s->n++] = kda_registry_ask(s->registry, id);
}

/* In a transaction: the answers that have come. */
static void
take_answers(KdaFeedSchemas *s, KdaSchemas *schemas)
{
	for (int i = s->n - 1; i >= 0; i--)
	{
		const char *why;
		const char *text;
		Size		len;

		if (!kda_registry_done(s->questions[i]))
			continue;
		text = kda_registry_schema(s->questions[i], &len, &why);
		if (text)
			kda_schemas_store(schemas, &s->ids[i], text, len);
		(void) kda_schemas_add(schemas, &s->ids[i], text, len, why);
		kda_registry_forget(s->questions[i]);
		s->n--;
		s->ids[i] = s->ids[s->n];
		s->questions[i] = s->questions[s->n];
	}
}

static bool
any_answer(KdaFeedSchemas *s)
{
	bool		any = false;

	for (int i = 0; i < s->n; i++)
		any |= kda_registry_done(s->questions[i]);
	return any;
}

/* Records whose schema nobody has looked up yet; *missing: the first of those schemas.  False: there is none. */
static bool
find_missing(KdaFeed *feed, KdaFeedSchemas *s, KdaSchemas *schemas, KdaSchemaId *missing)
{
	KdaRawBatch *raw = feed->stream->raw;
	KdaFraming	framing = kda_schemas_framing(schemas);
	KdaSchemaId last = {0};

	for (; s->looked_at < raw->n; s->looked_at++)
	{
		KdaRawRecord *rec = &raw->records[s->looked_at];
		KdaSchema  *schema;
		KdaSchemaId id;
		int			header;
		const char *why;

		if (rec->data == NULL || rec->len == 0 || !kda_schema_of_record(framing, rec->data, rec->len, &id, &header, &why) ||
			memcmp(&id, &last, sizeof(id)) == 0)
			continue;
		schema = kda_schemas_find(schemas, &id);
		if (schema && schema->type == NULL && kda_clock_now() > schema->since + ASK_AGAIN_US)
		{
			kda_schemas_forget(schemas, &id);
			schema = NULL;
		}
		if (schema == NULL)
		{
			*missing = id;
			return true;
		}
		last = id;
	}
	return false;
}

/* In a transaction: all that further records of the batch want, so that they do not wait one behind the other. */
static void
ask_ahead(KdaFeed *feed, KdaFeedSchemas *s, KdaSchemas *schemas)
{
	int			looked_at = s->looked_at;
	KdaSchemaId missing;

	for (; s->n < MAX_QUESTIONS && find_missing(feed, s, schemas, &missing); s->looked_at++)
		if (!is_asked(s, &missing) && kda_schemas_load(schemas, &missing) == NULL)
			ask(feed, s, &missing);
	s->looked_at = looked_at;
}

static bool
look(KdaFeed *feed, KdaFeedSchemas *s, KdaSchemas *schemas)
{
	KdaSchemaId missing;
	bool		found;

	if (s->context && s->options != kda_options_generation)
		kda_feed_schemas_close(feed);
	found = find_missing(feed, s, schemas, &missing);
	if (found ? is_asked(s, &missing) && !any_answer(s) : !any_answer(s))
		return !found;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	take_answers(s, schemas);
	while (find_missing(feed, s, schemas, &missing) && kda_schemas_load(schemas, &missing) != NULL)
		;
	found = find_missing(feed, s, schemas, &missing);
	if (found)
		ask_ahead(feed, s, schemas);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return !found;
}

bool
kda_feed_schemas_ready(KdaFeed *feed, char *trouble, Size size)
{
	KdaSchemas *schemas = kda_decoder_schemas(feed->stream->decoder);
	MemoryContext old = CurrentMemoryContext;
	KdaFeedSchemas *s = feed->schemas;
	volatile bool ready = false;

	if (schemas == NULL)
		return true;
	if (s == NULL)
		s = feed->schemas = MemoryContextAllocZero(feed->stream->context, sizeof(KdaFeedSchemas));
	PG_TRY();
	{
		ready = look(feed, s, schemas);
		for (int i = 0; i < s->n; i++)
			if (*kda_registry_trouble(s->questions[i]))
				snprintf(trouble, size, "schema registry \"%s\": %s", feed->stream->options->schema_registry,
						 kda_registry_trouble(s->questions[i]));
	}
	PG_CATCH();
	{
		/* no such server, no right to it: seen, and tried again when something has changed */
		ErrorData  *edata;

		MemoryContextSwitchTo(old);
		edata = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(old);
		if (ProcDiePending || ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(edata);
		kda_copy_text(trouble, edata->message, size);
		kda_feed_schemas_close(feed);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return ready;
}

void
kda_feed_schemas_begin(KdaFeed *feed)
{
	if (feed->schemas && feed->stream->raw->n == 0)
		feed->schemas->looked_at = 0;
}
