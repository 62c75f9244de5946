/*-------------------------------------------------------------------------
 *
 * kinesis_sink.c
 *	  Writes to a Kinesis stream by PutRecords, several calls at once.
 *
 * Runs in a deliver worker; all of it is done between two waits, by service()
 * and send().  Nothing is allocated per record: a batch brings one array, and a
 * call writes its body in one go.
 *
 * The promise is at least once.  A call whose answer is lost may have been
 * carried out, so its records are sent again; each carries its sealed number,
 * the same each time, which tells readers that they have it already.
 *
 * Order.  A call of PutRecords is no unit: of two records of one partition key
 * in it the first may fail and the second succeed, and AWS promises no order
 * within a call even if none fails.  So with "ordered" at most one record of a
 * key is under way at any time, and the next one of that key becomes ready when
 * AWS has acknowledged (or refused) the one before, whatever calls they are in.
 * Records of different keys share calls and calls run beside each other, so a
 * stream with many keys is as fast as without order; one key gets one record
 * per round trip.  PutRecord with SequenceNumberForOrdering, the only order that
 * AWS puts in writing, could not be faster for that key and would need a request
 * for each record of all others.  Records without key have nothing to be in
 * order with.  "Key" is the partition key, or else the explicit hash key; they
 * are compared by a hash of 64 bits, as two that meet only wait for each other.
 *
 * What fails of a call stays in its slot and is sent again alone, after a pause.
 * What AWS refuses is looked for by sending parts of the call, until the refused
 * record is alone.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "commands/defrem.h"
#include "common/hashfn.h"
#include "connector/aws.h"
#include "connector/aws_access.h"
#include "connector/kinesis_put.h"
#include "connector/kinesis_sink.h"
#include "connector/sink.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#define MAX_CALLS			16	/* at once */
#define MAX_CALLS_BYTES		(32 * 1024 * 1024)	/* of all of them, unless one alone has more */
#define DEFAULT_BATCH_BYTES	(5 * 1024 * 1024)	/* what every region and endpoint takes; a larger record goes alone */
#define SEALED_RECORDS		5000
#define SEALED_BYTES		(8 * 1024 * 1024)
#define SEALED_BATCHES		8
#define FIRST_PAUSE_MS		100
#define MAX_NAME			128

typedef struct Entry
{
	KdaOutRecord *record;
	struct Batch *batch;
	int64		number;
	uint64		key;			/* hash of what it has to be in order with */
	bool		has_key;
	struct Entry *next_of_key;
	struct Entry *next_ready;
} Entry;

typedef struct Batch
{
	dlist_node	node;
	KdaSealedBatch *sealed;
	MemoryContext context;
	int			left;			/* neither delivered nor refused yet */
	Entry		entries[FLEXIBLE_ARRAY_MEMBER];
} Batch;

/* A call and what it carries. */
typedef struct Slot
{
	KdaAwsCall *call;			/* NULL: free, or there was no memory for it */
	Entry	  **entries;		/* [n] in it and still to be sent by it */
	int			n;
	int			active;			/* so many of the first ones are what is being sent */
	Size		bytes;
	KdaRetry	retry;
	int64		pause_ms;		/* before it is sent again */
	TimestampTz not_before;		/* the same, where nothing could be sent: there is no request that the pause could be
								 * part of */
	KdaAwsError trouble;		/* of the last attempt */
} Slot;

/* Records of a key that are not done: a chain, whose first one is ready or under way. */
typedef struct KeyChain
{
	uint64		key;
	Entry	   *last;
	char		status;
} KeyChain;

#define SH_PREFIX		chains
#define SH_ELEMENT_TYPE	KeyChain
#define SH_KEY_TYPE		uint64
#define SH_KEY			key
#define SH_HASH_KEY(tb, key)	((uint32) (key))
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct KinesisSink
{
	KdaSink		sink;			/* first */
	KdaAwsAccess *access;
	KdaAwsService service;
	Oid			serverid;
	Oid			owner;
	const char *stream;			/* name or ARN */
	const char *member;
	bool		ordered;
	int			batch_records;
	Size		batch_bytes;
	MemoryContext context;
	MemoryContextCallback callback;

	dlist_head	batches;		/* not all done, in order */
	chains_hash *chains;		/* if ordered */
	Entry	   *first_ready;
	Entry	   *last_ready;
	Slot		slots[MAX_CALLS];
	Size		bytes;			/* of all slots */
	int64		failures;		/* calls of which only a part has failed, or that AWS has refused for now */
	bool	   *failed;			/* [batch_records] while an answer is read */
} KinesisSink;

/*---- options */

/* A name, or an ARN of a stream; AWS would refuse another one with the words that it has for a bad record. */
static bool
is_stream(const char *s)
{
	const char *name = s;

	if (strncmp(s, "arn:", 4) == 0)
	{
		/* arn:aws:kinesis:region:account:stream/name */
		const char *service = strchr(s + 4, ':');
		const char *last = strrchr(s, ':');

		if (service == NULL || strncmp(service, ":kinesis:", 9) != 0 || strncmp(last, ":stream/", 8) != 0)
			return false;
		name = last + 8;
		if (strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-:") < (size_t) (last - s))
			return false;
	}
	return *name && strlen(name) <= MAX_NAME &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == strlen(name);
}

void
kda_kinesis_check_writing(const char *name, int64 batch_records, int64 batch_bytes, bool headers, bool compression)
{
	if (batch_records > KDA_KINESIS_PUT_RECORDS || batch_bytes > KDA_KINESIS_PUT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a call of Kinesis cannot be as large as \"%s\" says", name),
				 errdetail("It takes at most %d records (batch_records) and %d bytes (batch_bytes).",
						   KDA_KINESIS_PUT_RECORDS, KDA_KINESIS_PUT_BYTES)));
	if (headers || compression)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("option \"%s\" cannot be used with Kinesis", headers ? "headers" : "compression"),
				 errhint("Drop it from \"%s\".", name)));
}

static void
check_options(const KdaSinkConfig *config)
{
	bool		headers = false;
	ListCell   *lc;

	if (!is_stream(config->topic))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no name of a Kinesis stream", config->topic),
				 errdetail("A name has up to %d letters, digits and _ . -; an ARN reads arn:aws:kinesis:REGION:ACCOUNT:stream/NAME.", MAX_NAME),
				 errhint("Set option \"stream\" of \"%s\".", config->output_name)));
	foreach(lc, config->options)
		headers |= strcmp(lfirst_node(DefElem, lc)->defname, "headers") == 0;
	kda_kinesis_check_writing(config->output_name, config->batch_records, config->batch_bytes, headers, config->compression != NULL);
}

/* Only JSON objects have a place for the number. */
static bool
is_json(const KdaSinkConfig *config)
{
	ListCell   *lc;

	foreach(lc, config->options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, "format") == 0)
			return strcmp(defGetString(option), "json") == 0;
	}
	return true;
}

/*---- opening and closing */

static void
free_calls(void *arg)
{
	KinesisSink *s = arg;

	for (int i = 0; i < MAX_CALLS; i++)
	{
		kda_aws_call_free(s->slots[i].call);
		s->slots[i].call = NULL;
	}
}

static KdaSink *
kinesis_open(const KdaSinkConfig *config)
{
	KinesisSink *s = palloc0(sizeof(KinesisSink));
	KdaAwsAccess *access;

	check_options(config);
	access = kda_aws_access(config->serverid, config->owner, config->wake_fd);
	s->access = access;
	s->serverid = config->serverid;
	s->owner = config->owner;
	s->sink.ops = &kda_kinesis_sink_ops;
	s->service.http = access->http;
	s->service.endpoint = access->endpoint;
	s->service.name = "kinesis";
	s->service.region = access->region;
	s->service.credentials = access->credentials;
	s->service.retry_max_ms = config->retry_max_ms;
	s->stream = pstrdup(config->topic);
	s->ordered = config->ordered;
	s->batch_records = config->batch_records > 0 ? config->batch_records : KDA_KINESIS_PUT_RECORDS;
	s->batch_bytes = config->batch_bytes > 0 ? config->batch_bytes : DEFAULT_BATCH_BYTES;
	s->context = CurrentMemoryContext;
	if (config->sequence_key && config->sequence_key[0] && is_json(config))
	{
		KdaText		member = {.plain = true};

		kda_kinesis_member(&member, config->sequence_key);
		s->member = pstrdup(kda_text_str(&member));
		kda_text_free(&member);
	}
	dlist_init(&s->batches);
	if (s->ordered)
		s->chains = chains_create(s->context, SEALED_RECORDS, NULL);
	s->failed = palloc(sizeof(bool) * s->batch_records);
	for (int i = 0; i < MAX_CALLS; i++)
	{
		s->slots[i].entries = palloc(sizeof(Entry *) * s->batch_records);
		kda_retry_init(&s->slots[i].retry, 0, FIRST_PAUSE_MS, config->retry_max_ms);
	}
	/* calls end before the access that they go by, whose callback is an older one */
	s->callback.func = free_calls;
	s->callback.arg = s;
	MemoryContextRegisterResetCallback(s->context, &s->callback);
	/* the other side knows nothing that would have to be learnt */
	s->sink.ready = true;
	return &s->sink;
}

/* Whoever asks with the same options gets the same access. */
static bool
kinesis_has_changed(KdaSink *sink)
{
	KinesisSink *s = (KinesisSink *) sink;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "kda kinesis access", ALLOCSET_SMALL_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	bool		changed = kda_aws_access(s->serverid, s->owner, s->access->wake_fd) != s->access;

	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	return changed;
}

static void
kinesis_close(KdaSink *sink, int deadline_ms)
{
	KinesisSink *s = (KinesisSink *) sink;
	dlist_mutable_iter iter;

	free_calls(s);
	dlist_foreach_modify(iter, &s->batches)
	{
		Batch	   *batch = dlist_container(Batch, node, iter.cur);

		dlist_delete(&batch->node);
		batch->sealed->state = NULL;
		MemoryContextDelete(batch->context);
	}
	s->first_ready = s->last_ready = NULL;
	for (int i = 0; i < MAX_CALLS; i++)
		s->slots[i].n = 0;
	s->sink.ready = false;
}

/*---- records on their way */

static void
make_ready(KinesisSink *s, Entry *entry)
{
	entry->next_ready = NULL;
	if (s->last_ready)
		s->last_ready->next_ready = entry;
	else
		s->first_ready = entry;
	s->last_ready = entry;
}

/* Delivered or refused: the next one of its key may go. */
static void
finish(KinesisSink *s, Entry *entry)
{
	entry->batch->left--;
	if (!entry->has_key)
		return;
	if (entry->next_of_key)
		make_ready(s, entry->next_of_key);
	else
		chains_delete(s->chains, entry->key);
}

static void
refuse(KinesisSink *s, Entry *entry, const char *why)
{
	entry->record->refused = MemoryContextStrdup(entry->batch->context, why);
	finish(s, entry);
}

static void
enqueue(KinesisSink *s, Entry *entry)
{
	KdaOutRecord *r = entry->record;

	if (s->ordered && (r->key || r->hash_key))
	{
		KeyChain   *chain;
		bool		found;

		entry->has_key = true;
		entry->key = r->key ? hash_bytes_extended((const unsigned char *) r->key, r->key_len, 0) :
			hash_bytes_extended((const unsigned char *) r->hash_key, (int) strlen(r->hash_key), 1);
		chain = chains_insert(s->chains, entry->key, &found);
		if (found)
			chain->last->next_of_key = entry;
		chain->last = entry;
		if (found)
			return;
	}
	make_ready(s, entry);
}

static KdaKinesisRecord
record_of(const Entry *entry)
{
	const KdaOutRecord *r = entry->record;

	return (KdaKinesisRecord)
	{
		.number = entry->number,
			.value = r->value,
			.len = r->len,
			.key = r->key,
			.key_len = r->key_len,
			.hash_key = r->hash_key,
	};
}

static Size
size_of(KinesisSink *s, const Entry *entry)
{
	KdaKinesisRecord r = record_of(entry);

	return kda_kinesis_size(&r, s->member);
}

/* What cannot even be asked; NULL: nothing.  No record without these is larger than a call may be. */
static const char *
why_not(KinesisSink *s, const Entry *entry)
{
	const KdaOutRecord *r = entry->record;

	if (r->value == NULL)
		return "Kinesis has no tombstones";
	if (size_of(s, entry) > KDA_KINESIS_PUT_BYTES)
		return psprintf("the record has %zu bytes with its partition key, and Kinesis takes at most %d", size_of(s, entry), KDA_KINESIS_PUT_BYTES);
	if (r->key && pg_encoding_verifymbstr(PG_UTF8, r->key, r->key_len) != r->key_len)
		return "the partition key is no UTF-8 text";
	return NULL;
}

/*---- calls */

/* Sends (again) what is in a slot, from the first up to "active". */
static void
start_call(KinesisSink *s, Slot *slot)
{
	KdaAwsCall *call = kda_aws_call_new(&s->service);
	KdaKinesisPut put = {0};

	slot->call = call;
	if (call == NULL)
	{
		slot->trouble.trouble = KDA_AWS_AGAIN;
		strlcpy(slot->trouble.message, "out of memory", sizeof(slot->trouble.message));
		return;
	}
	call->target = "Kinesis_20131202.PutRecords";
	call->plain_answer = true;
	call->body.plain = true;
	if (slot->not_before == 0)
		call->pause_ms = slot->pause_ms;
	put.body = &call->body;
	put.stream = s->stream;
	put.member = s->member;
	kda_kinesis_put_begin(&put);
	for (int i = 0; i < slot->active; i++)
	{
		KdaKinesisRecord r = record_of(slot->entries[i]);

		kda_kinesis_put_add(&put, &r);
	}
	kda_kinesis_put_end(&put);
	kda_aws_call_begin(call);
}

/* Takes ready records into a free slot.  False: there are none, or the calls under way have enough bytes. */
static bool
fill(KinesisSink *s, Slot *slot)
{
	if (s->first_ready == NULL || (s->bytes > 0 && s->bytes + size_of(s, s->first_ready) > MAX_CALLS_BYTES))
		return false;
	slot->bytes = 0;
	while (s->first_ready && slot->n < s->batch_records)
	{
		Entry	   *entry = s->first_ready;
		Size		size = size_of(s, entry);

		if (slot->n > 0 && (slot->bytes + size > s->batch_bytes || s->bytes + slot->bytes + size > MAX_CALLS_BYTES))
			break;
		s->first_ready = entry->next_ready;
		if (s->first_ready == NULL)
			s->last_ready = NULL;
		slot->entries[slot->n++] = entry;
		slot->bytes += size;
	}
	s->bytes += slot->bytes;
	slot->active = slot->n;
	slot->pause_ms = 0;
	slot->not_before = 0;
	memset(&slot->trouble, 0, sizeof(slot->trouble));
	return true;
}

static void
start_calls(KinesisSink *s)
{
	for (int i = 0; i < MAX_CALLS; i++)
	{
		Slot	   *slot = &s->slots[i];

		if (slot->call == NULL && (slot->n > 0 ? slot->not_before <= GetCurrentTimestamp() : fill(s, slot)))
			start_call(s, slot);
	}
}

/* It has an answer to all that is active. */
static void
take_results(KinesisSink *s, Slot *slot)
{
	int			nfailed = kda_kinesis_put_results(&slot->call->answer, slot->active, s->failed, &slot->trouble);
	int			kept = 0;

	if (nfailed == 0)
		kda_retry_after_success(&slot->retry);
	else
	{
		s->failures++;
		slot->pause_ms = kda_retry_after_failure(&slot->retry, 0);
		if (nfailed < 0)
			return;
	}
	for (int i = 0; i < slot->n; i++)
		if (i >= slot->active || s->failed[i])
			slot->entries[kept++] = slot->entries[i];
		else
			finish(s, slot->entries[i]);
	slot->n = slot->active = kept;
}

/* AWS refuses the call because of a record: smaller parts will show which. */
static void
find_refused(KinesisSink *s, Slot *slot)
{
	if (slot->active == 1)
	{
		refuse(s, slot->entries[0], slot->trouble.message);
		slot->entries[0] = slot->entries[slot->n - 1];
		slot->active = --slot->n;
	}
	else
	{
		int			blamed = kda_kinesis_put_blamed(slot->trouble.message, slot->active);

		if (blamed >= 0)
		{
			Entry	   *entry = slot->entries[blamed];

			slot->entries[blamed] = slot->entries[0];
			slot->entries[0] = entry;
		}
		slot->active = blamed >= 0 ? 1 : slot->active / 2;
	}
}

/* A call is done. */
static void
take_answer(KinesisSink *s, Slot *slot)
{
	slot->trouble = slot->call->error;
	slot->pause_ms = 0;
	slot->not_before = 0;
	if (slot->trouble.trouble == KDA_AWS_FINE)
		take_results(s, slot);
	else if (kda_kinesis_put_is_of_record(&slot->trouble))
		find_refused(s, slot);
	else
	{
		/* the stream is missing, keys or rights are: somebody may change that at AWS, which nobody tells us */
		s->failures++;
		slot->pause_ms = kda_retry_after_failure(&slot->retry, slot->trouble.retry_after_ms);
		if (slot->call->sent_at == 0)
			slot->not_before = GetCurrentTimestamp() + slot->pause_ms * 1000;
	}
	kda_aws_call_free(slot->call);
	slot->call = NULL;
	if (slot->n == 0)
	{
		s->bytes -= slot->bytes;
		slot->bytes = 0;
		kda_retry_after_success(&slot->retry);
	}
}

/* In the order in which they came. */
static void
finish_batches(KinesisSink *s)
{
	while (!dlist_is_empty(&s->batches))
	{
		Batch	   *batch = dlist_head_element(Batch, node, &s->batches);

		if (batch->left > 0)
			return;
		dlist_delete(&batch->node);
		batch->sealed->done = true;
	}
}

/* The trouble of some call that has not got over it. */
static void
tell(KinesisSink *s)
{
	s->sink.error[0] = '\0';
	for (int i = 0; i < MAX_CALLS; i++)
	{
		const Slot *slot = &s->slots[i];
		const KdaAwsError *error = slot->call && slot->call->error.trouble != KDA_AWS_FINE ? &slot->call->error : &slot->trouble;

		if (slot->n > 0 && error->trouble != KDA_AWS_FINE)
		{
			snprintf(s->sink.error, sizeof(s->sink.error), "Kinesis stream %s: %s", s->stream, error->message);
			break;
		}
	}
	s->sink.retries = s->service.failures + s->failures;
}

static void
kinesis_service(KdaSink *sink)
{
	KinesisSink *s = (KinesisSink *) sink;

	for (int i = 0; i < MAX_CALLS; i++)
		if (s->slots[i].call && kda_aws_call_done(s->slots[i].call))
			take_answer(s, &s->slots[i]);
	start_calls(s);
	finish_batches(s);
	tell(s);
}

static void
kinesis_send(KdaSink *sink, KdaSealedBatch *sealed)
{
	KinesisSink *s = (KinesisSink *) sink;
	MemoryContext context = AllocSetContextCreate(s->context, "kda kinesis batch", ALLOCSET_SMALL_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	Batch	   *batch = MemoryContextAllocHuge(context, offsetof(Batch, entries) + sizeof(Entry) * sealed->n);

	memset(batch, 0, offsetof(Batch, entries) + sizeof(Entry) * sealed->n);
	batch->sealed = sealed;
	batch->context = context;
	batch->left = sealed->n;
	dlist_push_tail(&s->batches, &batch->node);
	sealed->state = batch;
	sealed->done = false;
	for (int i = 0; i < sealed->n; i++)
	{
		Entry	   *entry = &batch->entries[i];
		const char *why;

		entry->record = &sealed->records[i];
		entry->record->refused = NULL;
		entry->batch = batch;
		entry->number = sealed->first + i;
		why = why_not(s, entry);
		if (why)
			refuse(s, entry, why);
		else
			enqueue(s, entry);
	}
	MemoryContextSwitchTo(before);
	kinesis_service(sink);
}

static void
kinesis_release(KdaSink *sink, KdaSealedBatch *sealed)
{
	Batch	   *batch = sealed->state;

	sealed->state = NULL;
	if (batch)
		MemoryContextDelete(batch->context);
}

const KdaSinkOps kda_kinesis_sink_ops = {
	.type = "kinesis",
	.exactly_once = false,
	.batch_records = SEALED_RECORDS,
	.batch_bytes = SEALED_BYTES,
	.max_batches = SEALED_BATCHES,
	.reads_mapping = true,
	.open = kinesis_open,
	.has_changed = kinesis_has_changed,
	.close = kinesis_close,
	.service = kinesis_service,
	.send = kinesis_send,
	.release = kinesis_release,
};
