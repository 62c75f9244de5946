/*-------------------------------------------------------------------------
 *
 * kinesis_shard.c
 *	  Reading of one shard: iterators, pages of records, and where it stands.
 *
 * A shard always has a mark: the record that was handed out last, or where
 * reading begins.  An iterator is asked for when there is none, always from the
 * mark, and only when all pages that have come are handed out.
 *
 * Going on behind a record, that record itself is read once more.  If it comes,
 * and is what was applied, nothing is missing and the shard is still the same.
 * If something later comes in its place, it has left by retention, and the
 * records after it may have, too: unless all that had come until less than the
 * time of retention ago has been read, the stream stops.
 *
 * A record that is an aggregate of the Kinesis Producer Library is taken apart
 * here; what is handed out are its parts, and the mark says which.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <stdlib.h>

#include "connector/kinesis_internal.h"
#include "connector/threads.h"
#include "port/pg_crc32c.h"
#include "runtime/runtime.h"

/* Quotas of a shard: 5 calls and 2 MB a second. */
#define CALL_MS			200
#define BYTES_PER_MS	2000
/* While nothing comes: as often, but all shards together not more than 200 times a second. */
#define IDLE_MS			250
#define IDLE_MAX_MS		1000
#define IDLE_SHARD_MS	5

/* 10 MiB of data are the most that GetRecords gives: in base64, with what stands around it. */
#define PAGE_BYTES		((Size) 16 * 1024 * 1024)
#define PAGE_MAX_BYTES	((Size) 48 * 1024 * 1024)
#define MAX_LIMIT		10000
#define MARGIN_MS		1000
#define MAX_PAGES		2		/* of a shard */
#define MAX_ITERATOR	1500

/*---- life */

KinesisShard *
kda_kinesis_shard_new(const KdaKinesisShardInfo *info)
{
	KinesisShard *s = calloc(1, sizeof(KinesisShard));

	if (s == NULL)
		return NULL;
	strlcpy(s->base.name, info->id, sizeof(s->base.name));
	for (int p = 0; p < KDA_SHARD_PARENTS; p++)
		if (info->parents[p])
			strlcpy(s->base.parents[p], info->parents[p], sizeof(s->base.parents[p]));
	if (!kda_kpl_hash_key(info->from_hash, strlen(info->from_hash), &s->from_hash) ||
		!kda_kpl_hash_key(info->to_hash, strlen(info->to_hash), &s->to_hash))
	{
		s->from_hash = 0;
		s->to_hash = ~(KdaHashKey) 0;
	}
	s->listed_ended = info->ended;
	s->base.next_position = s->base.first_position = s->base.end_position = -1;
	s->base.millis_behind = -1;
	s->base.complete_to = KDA_NO_TIME;
	s->limit = MAX_LIMIT;
	return s;
}

static void
free_page(Kinesis *k, KinesisReply *r)
{
	k->held -= r->answer.room;
	kda_text_free(&r->answer);
	if (r->in_kpl)
		kda_kpl_free(&r->kpl);
	free(r);
}

/* The shard has no more use for its first page. */
static void
drop_page(Kinesis *k, KinesisShard *s)
{
	KinesisReply *r = s->first;

	s->first = r->next;
	if (s->first == NULL)
		s->last = NULL;
	s->npages--;
	r->dropped = true;
	if (r->refs == 0)
		free_page(k, r);
}

static void
end_call(Kinesis *k, KinesisShard *s)
{
	if (s->call && s->asks_records)
		k->running--;
	kda_aws_call_free(s->call);
	s->call = NULL;
}

static void
stop_reading(Kinesis *k, KinesisShard *s)
{
	end_call(k, s);
	free(s->iterator);
	s->iterator = NULL;
	while (s->first)
		drop_page(k, s);
	s->base.at_end = false;
	s->verify = s->compare = s->ended = false;
	s->next_ms = s->covered_ms = s->since_ms = 0;
	s->nchildren = 0;
}

void
kda_kinesis_shard_free(Kinesis *k, KinesisShard *s)
{
	if (s == NULL)
		return;
	stop_reading(k, s);
	free(s);
}

void
kda_kinesis_shard_lose(Kinesis *k, KinesisShard *s, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(s->base.error, sizeof(s->base.error), fmt, args);
	va_end(args);
	stop_reading(k, s);			/* what the arguments point to may go with it */
	s->base.lost = true;
}

static void
trouble(KinesisShard *s, const char *message)
{
	s->base.at_end = false;
	snprintf(s->base.error, sizeof(s->base.error), "shard %s: %s", s->base.name, message);
}

/*---- where reading begins */

/*
 * May records have left the stream that were not read?  Those that have come
 * since complete_to are kept for the time of retention.
 */
static bool
may_miss(Kinesis *k, KinesisShard *s)
{
	return s->base.complete_to != KDA_NO_TIME && k->retention_us > 0 &&
		GetCurrentTimestamp() - s->base.complete_to >= k->retention_us;
}

static void
lose_gap(Kinesis *k, KinesisShard *s)
{
	char		when[64];

	strlcpy(when, timestamptz_to_str(s->base.complete_to), sizeof(when));
	kda_kinesis_shard_lose(k, s, "records of shard %s of stream \"%s\" that came after %s (position %s) may be gone: the stream keeps them for %d hours",
						   s->base.name, k->name, when, s->base.mark[0] ? s->base.mark : KINESIS_OLDEST,
						   (int) (k->retention_us / USECS_PER_HOUR));
}

/* A time as a mark. */
static void
mark_time(KinesisShard *s, KdaTime time, int64 skew_s)
{
	int64		ms = (time >= 0 ? time : time - 999) / 1000 + KINESIS_EPOCH_MS + skew_s * 1000;

	ms = Max(ms, 0);
	snprintf(s->base.mark, sizeof(s->base.mark), "@" INT64_FORMAT ".%03d", ms / 1000, (int) (ms % 1000));
}

/* What the mark says. */
static void
take_mark(KinesisShard *s)
{
	char	   *slash;

	s->verify = false;
	s->since_ms = 0;
	if (s->base.mark[0] == '@')
	{
		const char *point = strchr(s->base.mark, '.');

		s->since_ms = strtoll(s->base.mark + 1, NULL, 10) * 1000 + (point ? atoi(point + 1) : 0);
		return;
	}
	if (s->base.mark[0] < '0' || s->base.mark[0] > '9')
		return;
	s->verify = true;
	strlcpy(s->want, s->base.mark, sizeof(s->want));
	slash = strchr(s->want, '/');
	s->want_sub = slash ? atoi(slash + 1) : -1;
	if (slash)
		*slash = '\0';
}

void
kda_kinesis_shard_assign(Kinesis *k, KinesisShard *s, const KdaShardStart *start)
{
	stop_reading(k, s);
	s->base.assigned = true;
	s->base.lost = s->base.closed = false;
	s->base.error[0] = '\0';
	s->start = *start;
	s->base.next_position = 0;
	s->base.complete_to = start->complete_to;
	switch (start->kind)
	{
		case KDA_START_EARLIEST:
			strlcpy(s->base.mark, KINESIS_OLDEST, sizeof(s->base.mark));
			break;
		case KDA_START_LATEST:
			/* the end that there was then: it is the same place whenever it is asked for */
			mark_time(s, start->time == KDA_NO_TIME ? GetCurrentTimestamp() : start->time, k->service.skew_s);
			s->base.complete_to = start->time == KDA_NO_TIME ? GetCurrentTimestamp() : start->time;
			break;
		case KDA_START_TIME:
			mark_time(s, start->time, 0);
			break;
		case KDA_START_POSITION:
			s->base.next_position = start->position;
			strlcpy(s->base.mark, start->mark[0] ? start->mark : KINESIS_OLDEST, sizeof(s->base.mark));
			s->compare = start->last_position >= 0;
			if (s->compare && start->last_arrival != KDA_NO_TIME)
				s->base.complete_to = Max(s->base.complete_to, start->last_arrival);
			break;
	}
	take_mark(s);
	if (start->identity[0] && strcmp(start->identity, s->base.identity) != 0)
		kda_kinesis_shard_lose(k, s, "stream \"%s\" is not the one that was read: it was deleted and created anew", k->name);
	else if (!s->verify && may_miss(k, s))
		lose_gap(k, s);
}

/*---- asking */

static void
ask_iterator(Kinesis *k, KinesisShard *s)
{
	char		place[KDA_MARK_SIZE + 100];

	take_mark(s);
	if (s->verify)
		snprintf(place, sizeof(place), "\"AT_SEQUENCE_NUMBER\",\"StartingSequenceNumber\":\"%s\"", s->want);
	else if (s->since_ms > 0)
		snprintf(place, sizeof(place), "\"AT_TIMESTAMP\",\"Timestamp\":%s", s->base.mark + 1);
	else
		snprintf(place, sizeof(place), "\"" KINESIS_OLDEST "\"");
	s->asks_records = false;
	s->call = kda_kinesis_call(k, "Kinesis_20131202.GetShardIterator", "{%s,\"ShardId\":\"%s\",\"ShardIteratorType\":%s}",
							   k->stream_field, s->base.name, place);
	if (s->call)
		kda_aws_call_begin(s->call);
}

/* False: there is no room for the answer now. */
static bool
ask_records(Kinesis *k, KinesisShard *s, int64 now_ms)
{
	if (k->held + k->running > 0 && k->held + (k->running + 1) * PAGE_BYTES > k->fetch_memory)
		return false;
	s->call = kda_kinesis_call(k, "Kinesis_20131202.GetRecords", "{\"ShardIterator\":\"%s\",\"Limit\":%d%s}",
							   s->iterator, s->limit, k->arn_field);
	if (s->call == NULL)
		return false;
	s->asks_records = true;
	k->running++;
	s->sent_ms = now_ms;
	s->sent_at = GetCurrentTimestamp();
	s->call->max_answer = PAGE_MAX_BYTES;
	kda_aws_call_begin(s->call);
	return true;
}

/*---- answers */

/* What was refused for good, as far as this call goes. */
static void
take_refusal(Kinesis *k, KinesisShard *s, int64 now_ms)
{
	const KdaAwsError *error = &s->call->error;
	bool		too_large = s->asks_records && error->status == 0 && strstr(error->message, "too large") != NULL;

	if (s->asks_records && strcmp(error->code, "ExpiredIteratorException") == 0)
	{
		/* held back for more than five minutes; nothing is wrong */
		free(s->iterator);
		s->iterator = NULL;
		end_call(k, s);
		return;
	}
	if (!s->asks_records && s->verify && strcmp(error->code, "InvalidArgumentException") == 0)
	{
		kda_kinesis_shard_lose(k, s, "position %s of shard %s of stream \"%s\" is unknown there: the stream was created anew (%s)",
							   s->base.mark, s->base.name, k->name, error->message);
		return;
	}
	trouble(s, error->message);
	if (strcmp(error->code, "ResourceNotFoundException") == 0)
		kda_kinesis_want_list(k, now_ms);
	if (too_large && s->limit > 1)
		s->limit /= 2;
	else if (s->asks_records && !too_large)
	{
		free(s->iterator);
		s->iterator = NULL;
	}
	s->next_ms = now_ms + kda_retry_after_failure(&s->retry, 0);
	end_call(k, s);
}

static void
take_iterator(Kinesis *k, KinesisShard *s, int64 now_ms)
{
	char	   *iterator = kda_kinesis_string(s->call->answer.data, s->call->answer.len, "ShardIterator");

	if (iterator && *iterator && strlen(iterator) <= MAX_ITERATOR && kda_kinesis_is_plain(iterator))
		s->iterator = strdup(iterator);
	end_call(k, s);
	if (s->iterator == NULL)
	{
		trouble(s, "the answer to GetShardIterator was not understood");
		s->next_ms = now_ms + kda_retry_after_failure(&s->retry, 0);
	}
}

/* All of the first page has been handed out. */
static void
finish_page(Kinesis *k, KinesisShard *s)
{
	KinesisReply *r = s->first;
	int64		behind = r->page.millis_behind;
	bool		at_end = r->page.empty && behind == 0 && r->next == NULL && !s->ended;

	s->base.millis_behind = behind;
	/* a full page may have been cut, whatever it says */
	if (behind >= 0 && r->n < r->limit)
	{
		if (s->verify && (at_end || (s->ended && r->next == NULL)))
		{
			/* the record that was read last is not there any more */
			s->verify = s->compare = false;
			if (may_miss(k, s))
			{
				lose_gap(k, s);
				return;
			}
		}
		if (!s->verify)
		{
			/* before the end, times of arrival are what it says: approximate */
			int64		margin = behind > 0 ? behind + MARGIN_MS : 0;

			s->covered_ms = Max(s->covered_ms, r->sent_ms - margin);
			s->base.complete_to = Max(s->base.complete_to, r->sent_at - margin * 1000);
		}
	}
	if (at_end && !s->verify)
		s->base.at_end = true;
	drop_page(k, s);
}

static void
note_children(KinesisShard *s, const KdaKinesisPage *page)
{
	for (int i = 0; i < page->nchildren; i++)
		strlcpy(s->children[i], page->children[i], sizeof(s->children[i]));
	s->nchildren = page->nchildren;
}

static void
take_page(Kinesis *k, KinesisShard *s, int64 now_ms)
{
	KinesisReply *r = calloc(1, sizeof(KinesisReply));
	bool		fine;

	if (r == NULL)
	{
		end_call(k, s);
		trouble(s, "out of memory");
		s->next_ms = now_ms + kda_retry_after_failure(&s->retry, 0);
		return;
	}
	r->answer = s->call->answer;
	memset(&s->call->answer, 0, sizeof(KdaText));
	end_call(k, s);
	k->held += r->answer.room;
	r->limit = s->limit;
	r->sent_ms = s->sent_ms;
	r->sent_at = s->sent_at;
	fine = r->answer.data && kda_kinesis_page(&r->page, r->answer.data, r->answer.len) &&
		(r->page.iterator == NULL || (*r->page.iterator && strlen(r->page.iterator) <= MAX_ITERATOR && kda_kinesis_is_plain(r->page.iterator)));
	free(s->iterator);
	s->iterator = NULL;
	if (fine && r->page.iterator && (s->iterator = strdup(r->page.iterator)) == NULL)
		fine = false;
	if (!fine)
	{
		free_page(k, r);
		trouble(s, "the answer to GetRecords was not understood");
		s->next_ms = now_ms + kda_retry_after_failure(&s->retry, 0);
		return;
	}
	kda_retry_after_success(&s->retry);
	s->base.error[0] = '\0';
	if (r->page.iterator == NULL)
	{
		s->ended = true;
		s->ended_ms = now_ms;
		note_children(s, &r->page);
	}
	if (r->page.empty)
		s->next_ms = s->sent_ms + (r->page.millis_behind > 0 ? CALL_MS :
								   Min(Max(k->nopen * IDLE_SHARD_MS, IDLE_MS), IDLE_MAX_MS));
	else
	{
		s->base.at_end = false;
		s->next_ms = s->sent_ms + Max(CALL_MS, (int64) (r->answer.len / 4 * 3 / BYTES_PER_MS));
		s->limit = Min(s->limit * 2, MAX_LIMIT);
	}
	if (s->last)
		s->last->next = r;
	else
		s->first = r;
	s->last = r;
	s->npages++;
	if (s->first == r && r->page.empty)
		finish_page(k, s);
}

void
kda_kinesis_shard_service(Kinesis *k, KinesisShard *s, int64 now_ms)
{
	if (s->call)
	{
		if (!kda_aws_call_done(s->call))
		{
			/* it is tried again by itself */
			if (s->call->retry.failed > 0)
				trouble(s, s->call->error.message);
			return;
		}
		if (s->call->error.trouble != KDA_AWS_FINE)
			take_refusal(k, s, now_ms);
		else if (s->asks_records)
			take_page(k, s, now_ms);
		else
			take_iterator(k, s, now_ms);
		if (s->base.lost)
			return;
	}
	if (s->ended || k->missing || s->npages >= MAX_PAGES || (s->iterator == NULL && s->first))
		return;
	if (now_ms < s->next_ms)
		k->next_ms = Min(k->next_ms, s->next_ms);
	else if (s->iterator == NULL)
		ask_iterator(k, s);
	else
		(void) ask_records(k, s, now_ms);
}

/*---- records */

static bool
is_same(KinesisShard *s, const char *data, size_t len, KdaTime arrival)
{
	pg_crc32c	crc;

	if (!s->compare)
		return true;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, data, len);
	FIN_CRC32C(crc);
	return crc == s->start.last_crc && arrival == s->start.last_arrival;
}

static void
lose_identity(Kinesis *k, KinesisShard *s)
{
	kda_kinesis_shard_lose(k, s, "the record at position %s of shard %s of stream \"%s\" is not the one that was read: the stream was created anew",
						   s->base.mark, s->base.name, k->name);
}

static inline void
hand_out(KinesisShard *s, int index, KinesisReply *r, KdaRawBatch *into, const char *data, size_t len,
		 const char *key, size_t key_len, const char *sequence, int32 sub, KdaTime arrival)
{
	KdaRawRecord *rec = kda_raw_batch_add(into, r);

	rec->data = data;
	rec->len = len;
	rec->key = key;
	rec->key_len = key_len;
	rec->shard = index;
	rec->mark = sequence;
	rec->mark_sub = sub;
	rec->position = s->base.next_position++;
	rec->arrival = arrival;
	into->bytes += len + key_len;
	r->refs++;
}

/* Something went wrong in the midst of a page: it comes again, from the last record handed out on. */
static void
read_again(Kinesis *k, KinesisShard *s, const char *why)
{
	while (s->first)
		drop_page(k, s);
	end_call(k, s);
	free(s->iterator);
	s->iterator = NULL;
	s->ended = false;
	trouble(s, why);
	s->next_ms = kda_monotonic_ms() + kda_retry_after_failure(&s->retry, 0);
}

/*
 * The next record of the page, which is no part of an aggregate.  False: the
 * page has ended, or the shard is lost.
 */
static bool
next_record(Kinesis *k, KinesisShard *s, int index, KinesisReply *r, KdaRawBatch *into)
{
	KdaKinesisRecord rec;
	KdaTime		arrival;
	KdaKplKind	kind;
	bool		wanted = false;

	switch (kda_kinesis_next(&r->page, &rec))
	{
		case KDA_KINESIS_RECORD:
			break;
		case KDA_KINESIS_NO_MORE:
			finish_page(k, s);
			return false;
		case KDA_KINESIS_BROKEN:
			read_again(k, s, "a record in the answer to GetRecords was not understood");
			return false;
	}
	r->n++;
	arrival = rec.arrival_ms < 0 || rec.arrival_ms > PG_INT64_MAX / 1000 - 1 ? KDA_NO_TIME : (rec.arrival_ms - KINESIS_EPOCH_MS) * 1000;
	if (unlikely(s->since_ms > 0))
	{
		if (rec.arrival_ms >= 0 && rec.arrival_ms < s->since_ms)
			return true;
		s->since_ms = 0;
	}
	if (unlikely(s->verify))
	{
		int			c = kda_kinesis_compare(rec.sequence, s->want);

		if (c < 0)
			return true;
		wanted = c == 0;
		if (!wanted)
		{
			s->verify = s->compare = false;
			if (may_miss(k, s))
			{
				lose_gap(k, s);
				return false;
			}
		}
	}
	if (likely(rec.len < 4 || (uint8) rec.data[0] != 0xF3))
		kind = KDA_KPL_PLAIN;
	else
		kind = kda_kpl_begin(&r->kpl, rec.data, rec.len, s->from_hash, s->to_hash);
	if (unlikely(wanted) && kind != KDA_KPL_NO_MEMORY && (s->want_sub >= 0) != (kind == KDA_KPL_AGGREGATE))
	{
		if (kind == KDA_KPL_AGGREGATE)
			kda_kpl_free(&r->kpl);
		lose_identity(k, s);
		return false;
	}
	switch (kind)
	{
		case KDA_KPL_AGGREGATE:
			r->in_kpl = true;
			r->sequence = rec.sequence;
			r->arrival = arrival;
			return true;
		case KDA_KPL_ELSEWHERE:
			return true;
		case KDA_KPL_NO_MEMORY:
			read_again(k, s, "out of memory");
			return false;
		case KDA_KPL_PLAIN:
			break;
	}
	if (unlikely(wanted))
	{
		if (!is_same(s, rec.data, rec.len, arrival))
		{
			lose_identity(k, s);
			return false;
		}
		s->verify = s->compare = false;
		return true;
	}
	hand_out(s, index, r, into, rec.data, rec.len, rec.key, rec.key_len, rec.sequence, -1, arrival);
	return true;
}

/* The same of the aggregate that has been begun. */
static bool
next_part(Kinesis *k, KinesisShard *s, int index, KinesisReply *r, KdaRawBatch *into)
{
	const char *data;
	const char *key;
	size_t		len;
	size_t		key_len;
	int32		sub = r->kpl.next;

	if (!kda_kpl_next(&r->kpl, &data, &len, &key, &key_len))
	{
		kda_kpl_free(&r->kpl);
		r->in_kpl = false;
		if (unlikely(s->verify && kda_kinesis_compare(r->sequence, s->want) >= 0))
		{
			lose_identity(k, s);	/* it has fewer parts */
			return false;
		}
		return true;
	}
	if (unlikely(s->verify))
	{
		if (sub < s->want_sub)
			return true;
		if (!is_same(s, data, len, r->arrival))
		{
			lose_identity(k, s);
			return false;
		}
		s->verify = s->compare = false;
		return true;
	}
	hand_out(s, index, r, into, data, len, key, key_len, r->sequence, sub, r->arrival);
	return true;
}

int
kda_kinesis_shard_fetch(Kinesis *k, KinesisShard *s, int index, KdaRawBatch *into, int max_records, Size limit)
{
	int			had = into->n;
	int			most = had + max_records;

	while (s->first && into->n < most && (into->n == 0 || into->bytes < limit))
	{
		KinesisReply *r = s->first;

		while (into->n < most && (into->n == 0 || into->bytes < limit))
			if (!(r->in_kpl ? next_part(k, s, index, r, into) : next_record(k, s, index, r, into)))
				break;
	}
	if (into->n > had)
	{
		const KdaRawRecord *rec = &into->records[into->n - 1];
		char		place[KDA_PLACE_SIZE];

		/* of what was handed out; the shard may be lost by what follows it */
		strlcpy(s->base.mark, kda_raw_place(rec, place), sizeof(s->base.mark));
	}
	return into->n - had;
}

void
kda_kinesis_release(Kinesis *k, KdaRawBatch *batch)
{
	for (int i = 0; i < batch->n; i++)
	{
		KinesisReply *r = batch->handles[i];

		if (--r->refs == 0 && r->dropped)
			free_page(k, r);
	}
	batch->n = 0;
	batch->bytes = 0;
}
