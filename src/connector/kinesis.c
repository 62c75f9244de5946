/*-------------------------------------------------------------------------
 *
 * kinesis.c
 *	  Reading a Kinesis stream: what there is of it, and its shards in turn.
 *
 * The service is asked by calls that do not block (aws.h); everything here runs
 * on the main thread, in service() and fetch().  One shard is read by
 * kinesis_shard.c.
 *
 * A stream is known by the time of its creation: one of the same name with
 * another time is another stream, whose records must not follow on those of the
 * first.  The list of shards is read again when a shard ends and every minute.
 * A shard counts as closed only when a list that was begun after its end has
 * its children, so that whoever sees it closed knows what comes behind it.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <stdlib.h>

#include "connector/kinesis.h"
#include "connector/kinesis_internal.h"
#include "connector/threads.h"
#include "runtime/runtime.h"
#include "utils/memutils.h"

#define LIST_EVERY_MS	60000
#define LIST_AGAIN_MS	1000	/* what has just ended has no children yet */
#define LIST_MAX_BYTES	(8 * 1024 * 1024)
#define MAX_SHARDS		100000
#define FIRST_PAUSE_MS	500

/*---- opening and closing */

static bool
is_name(const char *s, size_t len)
{
	return len >= 1 && len <= 128 &&
		strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") >= len;
}

/* arn:aws:kinesis:eu-west-1:123456789012:stream/name */
static bool
is_arn(const char *s)
{
	const char *p = s;
	const char *slash = strchr(s, '/');
	int			colons = 0;

	if (strlen(s) >= 256 || strncmp(s, "arn:aws", 7) != 0 || slash == NULL || !kda_kinesis_is_plain(s))
		return false;
	for (; *p && p < slash; p++)
		colons += *p == ':';
	return colons == 5 && strstr(s, ":kinesis:") != NULL && slash - s > 7 && strncmp(slash - 7, ":stream", 7) == 0 &&
		is_name(slash + 1, strlen(slash + 1));
}

void
kda_kinesis_check_stream(const char *stream_name, const char *topic, int parallelism)
{
	if (strncmp(topic, "arn:", 4) == 0 ? !is_arn(topic) : !is_name(topic, strlen(topic)))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("\"%s\" is not the name of a Kinesis stream", topic),
				 errdetail("A name has up to 128 letters, digits, '_', '-' and '.'; an ARN looks like arn:aws:kinesis:eu-west-1:123456789012:stream/name."),
				 errhint("OPTIONS (stream '...') names the stream at the server.")));
	if (parallelism > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" cannot have a parallelism of %d", stream_name, parallelism),
				 errdetail("The shards of a Kinesis stream are read by one process: those that come from a split or merge wait for others."),
				 errhint("Option worker 'name' puts a stream on a process of its own.")));
}

static KdaSource *
kinesis_open(const KdaSourceConfig *config)
{
	/* with the transaction, until all has succeeded */
	MemoryContext context = AllocSetContextCreate(CurTransactionContext, "kda kinesis", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Kinesis    *k = palloc0(sizeof(Kinesis));

	k->base.ops = &kda_kinesis_ops;
	k->context = context;
	k->serverid = config->serverid;
	k->owner = config->owner;
	k->wake_fd = config->wake_fd;
	k->fetch_memory = config->fetch_memory;
	strlcpy(k->name, config->topic, sizeof(k->name));
	if (strncmp(k->name, "arn:", 4) == 0)
	{
		snprintf(k->stream_field, sizeof(k->stream_field), "\"StreamARN\":\"%s\"", k->name);
		snprintf(k->arn_field, sizeof(k->arn_field), ",%s", k->stream_field);
	}
	else
		snprintf(k->stream_field, sizeof(k->stream_field), "\"StreamName\":\"%s\"", k->name);
	k->access = kda_aws_access(config->serverid, config->owner, config->wake_fd);
	k->service.http = k->access->http;
	k->service.endpoint = k->access->endpoint;
	k->service.name = "kinesis";
	k->service.region = k->access->region;
	k->service.credentials = k->access->credentials;
	k->service.retry_max_ms = kda_retry_max_interval_ms;
	kda_retry_init(&k->retry, 0, FIRST_PAUSE_MS, kda_retry_max_interval_ms);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, old);
	return &k->base;
}

static void
free_found(Kinesis *k)
{
	for (int i = 0; i < k->nfound; i++)
		kda_kinesis_shard_free(k, k->found[i]);
	free(k->found);
	k->found = NULL;
	k->nfound = 0;
}

static void
kinesis_close(KdaSource *source, int deadline_ms)
{
	Kinesis    *k = (Kinesis *) source;

	kda_aws_call_free(k->call);
	free_found(k);
	for (int i = 0; i < k->base.nshards; i++)
		kda_kinesis_shard_free(k, k->shards[i]);
	free(k->shards);
	/* with it the access, which waits for its thread as long as it says itself */
	MemoryContextDelete(k->context);
}

static bool
kinesis_has_changed(KdaSource *source)
{
	Kinesis    *k = (Kinesis *) source;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda kinesis access", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	bool		changed = kda_aws_access(k->serverid, k->owner, k->wake_fd) != k->access;

	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return changed;
}

/*---- calls */

bool
kda_kinesis_is_plain(const char *s)
{
	for (; *s; s++)
		if (*s <= ' ' || *s > '~' || *s == '"' || *s == '\\')
			return false;
	return true;
}

KdaAwsCall *
kda_kinesis_call(Kinesis *k, const char *target, const char *fmt,...)
{
	KdaAwsCall *call = kda_aws_call_new(&k->service);
	char		body[2048];
	va_list		args;
	int			n;

	if (call == NULL)
		return NULL;
	va_start(args, fmt);
	n = vsnprintf(body, sizeof(body), fmt, args);
	va_end(args);
	call->target = target;
	call->plain_answer = true;
	if (n < 0 || n >= (int) sizeof(body))
		call->body.failed = true;	/* what it is made of is bounded: cannot happen */
	kda_text_add(&call->body, body, Min(n, (int) sizeof(body) - 1));
	return call;
}

void
kda_kinesis_want_list(Kinesis *k, int64 now_ms)
{
	int64		at = now_ms - k->list_began_ms < LIST_AGAIN_MS ? k->list_began_ms + LIST_AGAIN_MS : now_ms;

	k->list_at_ms = Min(k->list_at_ms, at);
	k->next_ms = Min(k->next_ms, k->list_at_ms);
}

/*---- the list of shards */

static bool
add_found(void *arg, const KdaKinesisShardInfo *info)
{
	Kinesis    *k = arg;
	KinesisShard *s;

	/* others than those of the service's own making cannot be asked for */
	if (strlen(info->id) >= KDA_SHARD_NAME || !is_name(info->id, strlen(info->id)) || k->nfound >= MAX_SHARDS)
		return false;
	for (int p = 0; p < KDA_SHARD_PARENTS; p++)
		if (info->parents[p] && (strlen(info->parents[p]) >= KDA_SHARD_NAME || !is_name(info->parents[p], strlen(info->parents[p]))))
			return false;
	if ((k->nfound & (k->nfound - 1)) == 0)
	{
		KinesisShard **more = realloc(k->found, sizeof(KinesisShard *) * Max(k->nfound * 2, 1));

		if (more == NULL)
			return false;
		k->found = more;
	}
	s = kda_kinesis_shard_new(info);
	if (s == NULL)
		return false;
	k->found[k->nfound++] = s;
	return true;
}

/* The index of the one of that name, or -1; near: where it is likely to be. */
static int
find(Kinesis *k, const char *name, int near)
{
	for (int i = 0; i < k->base.nshards; i++)
	{
		int			at = (near + i) % k->base.nshards;

		if (strcmp(k->shards[at]->base.name, name) == 0)
			return at;
	}
	return -1;
}

/* The list is complete: what is new, and what is not there any more. */
static bool
take_list(Kinesis *k)
{
	int			n = k->base.nshards;
	int			had = n;
	KinesisShard **shards = realloc(k->shards, sizeof(KinesisShard *) * Max(n + k->nfound, 1));
	int			near = 0;

	if (shards == NULL)
		return false;
	k->shards = shards;
	k->base.shards = (KdaSourceShard **) shards;
	for (int i = 0; i < had; i++)
		shards[i]->base.gone = true;
	for (int i = 0; i < k->nfound; i++)
	{
		KinesisShard *f = k->found[i];
		int			at = had > 0 ? find(k, f->base.name, near) : -1;

		if (at < 0)
		{
			strlcpy(f->base.identity, k->identity, sizeof(f->base.identity));
			kda_retry_init(&f->retry, 0, FIRST_PAUSE_MS, kda_retry_max_interval_ms);
			shards[n++] = f;
			k->found[i] = NULL;
			continue;
		}
		near = at + 1;
		shards[at]->base.gone = false;
		shards[at]->listed_ended = f->listed_ended;
	}
	k->base.nshards = n;
	k->base.known = true;
	free_found(k);
	return true;
}

static void
list_trouble(Kinesis *k, int64 now_ms, const char *message)
{
	strlcpy(k->trouble, message, sizeof(k->trouble));
	k->list_at_ms = now_ms + kda_retry_after_failure(&k->retry, 0);
}

/* False: not now. */
static bool
take_summary(Kinesis *k, int64 now_ms)
{
	KdaKinesisSummary summary;
	char		identity[40];

	if (!kda_kinesis_summary(k->call->answer.data, k->call->answer.len, &summary))
	{
		list_trouble(k, now_ms, "the answer to DescribeStreamSummary was not understood");
		return false;
	}
	if (strcmp(summary.status, "CREATING") == 0 || strcmp(summary.status, "DELETING") == 0)
	{
		char		message[400];

		snprintf(message, sizeof(message), "stream \"%s\" is in state %s", k->name, summary.status);
		k->missing = true;
		list_trouble(k, now_ms, message);
		return false;
	}
	snprintf(identity, sizeof(identity), INT64_FORMAT, summary.created_ms);
	if (k->identity[0] && strcmp(identity, k->identity) != 0)
	{
		for (int i = 0; i < k->base.nshards; i++)
			kda_kinesis_shard_lose(k, k->shards[i], "stream \"%s\" was deleted and created anew", k->name);
		list_trouble(k, now_ms, "the stream was deleted and created anew");
		return false;
	}
	strlcpy(k->identity, identity, sizeof(k->identity));
	k->retention_us = Min(Max(summary.retention_hours, 0), 24 * 366 * 10) * USECS_PER_HOUR;
	k->missing = false;
	return true;
}

static void
ask_list(Kinesis *k, const char *token)
{
	k->asks_list = true;
	if (token)
		k->call = kda_kinesis_call(k, "Kinesis_20131202.ListShards", "{\"NextToken\":\"%s\"}", token);
	else
		k->call = kda_kinesis_call(k, "Kinesis_20131202.ListShards", "{%s,\"MaxResults\":1000}", k->stream_field);
	if (k->call == NULL)
		return;
	k->call->max_answer = LIST_MAX_BYTES;
	kda_aws_call_begin(k->call);
}

/* An answer has come, or will never come. */
static void
take_answer(Kinesis *k, int64 now_ms)
{
	KdaAwsCall *call = k->call;
	char	   *token = NULL;

	if (call->error.trouble != KDA_AWS_FINE)
	{
		char		message[512];
		bool		missing = strcmp(call->error.code, "ResourceNotFoundException") == 0;

		k->missing |= missing;
		free_found(k);
		snprintf(message, sizeof(message), "%s", missing ? "" : call->error.message);
		if (missing)
			snprintf(message, sizeof(message), "stream \"%s\" does not exist at the server", k->name);
		list_trouble(k, now_ms, message);
		kda_aws_call_free(call);
		k->call = NULL;
		return;
	}
	if (!k->asks_list)
	{
		bool		fine = take_summary(k, now_ms);

		kda_aws_call_free(call);
		k->call = NULL;
		if (fine)
		{
			free_found(k);
			ask_list(k, NULL);
		}
		return;
	}
	if (!kda_kinesis_shards(call->answer.data, call->answer.len, add_found, k, &token) ||
		(token && (!kda_kinesis_is_plain(token) || strlen(token) > 1500 || *token == '\0')))
	{
		free_found(k);
		list_trouble(k, now_ms, "the answer to ListShards was not understood");
		token = NULL;
	}
	else if (token)
		ask_list(k, token);
	else if (take_list(k))
	{
		k->listed_ms = k->list_began_ms;
		k->list_at_ms = now_ms + LIST_EVERY_MS;
		k->trouble[0] = '\0';
		kda_retry_after_success(&k->retry);
	}
	else
		list_trouble(k, now_ms, "out of memory");
	if (k->call == call)
		k->call = NULL;
	kda_aws_call_free(call);
}

static void
service_list(Kinesis *k, int64 now_ms)
{
	if (k->call && kda_aws_call_done(k->call))
		take_answer(k, now_ms);
	else if (k->call && k->call->retry.failed > 0)
		strlcpy(k->trouble, k->call->error.message, sizeof(k->trouble));
	if (k->call == NULL && now_ms >= k->list_at_ms)
	{
		k->list_at_ms = now_ms + LIST_EVERY_MS;
		k->list_began_ms = now_ms;
		k->asks_list = false;
		k->call = kda_kinesis_call(k, "Kinesis_20131202.DescribeStreamSummary", "{%s}", k->stream_field);
		if (k->call)
			kda_aws_call_begin(k->call);
	}
	k->next_ms = Min(k->next_ms, k->list_at_ms);
}

/*---- closing of shards */

/* It has ended: are its children known? */
static void
close_shard(Kinesis *k, KinesisShard *s, int64 now_ms)
{
	bool		known = k->listed_ms >= s->ended_ms;

	if (s->nchildren > 0)
		for (int c = 0; c < s->nchildren; c++)
			known &= find(k, s->children[c], 0) >= 0;
	else
		known &= s->listed_ended || s->base.gone;
	if (known)
	{
		s->base.closed = true;
		s->base.at_end = true;
		s->base.millis_behind = 0;
	}
	else
		kda_kinesis_want_list(k, now_ms);
}

static void
kinesis_service(KdaSource *source)
{
	Kinesis    *k = (Kinesis *) source;
	int64		now_ms = kda_monotonic_ms();
	int			n = source->nshards;

	k->next_ms = KINESIS_NEVER_MS;
	service_list(k, now_ms);
	strlcpy(source->error, k->trouble, sizeof(source->error));
	k->nopen = 0;
	for (int i = 0; i < n; i++)
		k->nopen += k->shards[i]->base.assigned && !k->shards[i]->base.closed;
	k->turn++;
	for (int i = 0; i < n; i++)
	{
		KinesisShard *s = k->shards[(k->turn + i) % n];

		if (!s->base.assigned || s->base.lost || s->base.closed)
			continue;
		if (k->missing)
			s->base.at_end = false;
		kda_kinesis_shard_service(k, s, now_ms);
		if (s->ended && s->first == NULL && !s->base.lost)
			close_shard(k, s, now_ms);
		if (s->base.error[0] && !s->base.lost && source->error[0] == '\0')
			strlcpy(source->error, s->base.error, sizeof(source->error));
	}
	source->service_at = k->next_ms == KINESIS_NEVER_MS ? 0 :
		GetCurrentTimestamp() + Max(k->next_ms - now_ms, 1) * 1000;
}

static void
kinesis_assign(KdaSource *source, int shard, const KdaShardStart *start)
{
	Kinesis    *k = (Kinesis *) source;

	kda_kinesis_shard_assign(k, k->shards[shard], start);
}

static int
kinesis_fetch(KdaSource *source, KdaRawBatch *into, int max_records, Size max_bytes)
{
	Kinesis    *k = (Kinesis *) source;
	Size		limit = into->bytes + max_bytes;
	int			added = 0;
	int			n = source->nshards;

	for (int i = 0; i < n && added < max_records && (into->n == 0 || into->bytes < limit); i++)
	{
		int			index = (k->turn + i) % n;

		if (k->shards[index]->first)
			added += kda_kinesis_shard_fetch(k, k->shards[index], index, into, max_records - added, limit);
	}
	return added;
}

static void
kinesis_release(KdaSource *source, KdaRawBatch *batch)
{
	kda_kinesis_release((Kinesis *) source, batch);
}

/*---- ends: a ticket is the time; it is good once all that had come by then has been handed out */

static uint64
kinesis_ends_begin(KdaSource *source)
{
	Kinesis    *k = (Kinesis *) source;
	int64		now_ms = kda_monotonic_ms();

	for (int i = 0; i < source->nshards; i++)
		if (k->shards[i]->iterator)
			k->shards[i]->next_ms = Min(k->shards[i]->next_ms, Max(now_ms, k->shards[i]->sent_ms + 200));
	return (uint64) now_ms;
}

static bool
kinesis_ends_poll(KdaSource *source, uint64 ticket, int64 *ends, int nends)
{
	Kinesis    *k = (Kinesis *) source;

	for (int i = 0; i < source->nshards; i++)
	{
		KinesisShard *s = k->shards[i];

		/* what has ended has children that may not be known yet */
		if (!s->base.closed && !s->base.gone && (s->ended || s->covered_ms <= (int64) ticket))
			return false;
	}
	for (int i = 0; i < nends && i < source->nshards; i++)
		ends[i] = Max(k->shards[i]->base.next_position, 0);
	return true;
}

/* Records have none. */
static char *
kinesis_headers_json(const KdaRawRecord *record)
{
	return NULL;
}

const KdaSourceOps kda_kinesis_ops = {
	.type = "kinesis",
	.marks = true,
	.reads_mapping = true,
	.open = kinesis_open,
	.has_changed = kinesis_has_changed,
	.close = kinesis_close,
	.service = kinesis_service,
	.assign = kinesis_assign,
	.fetch = kinesis_fetch,
	.release = kinesis_release,
	.ends_begin = kinesis_ends_begin,
	.ends_poll = kinesis_ends_poll,
	.headers_json = kinesis_headers_json
};
