/*-------------------------------------------------------------------------
 *
 * file_sink.c
 *	  A sink for tests: the other side of CREATE SERVER ... TYPE 'file' is a
 *	  file, so that what has left, how often and in which order can be read by
 *	  anybody.
 *
 * Option topic is the file's path.  A batch is one write: a line for each
 * record (number, key, value, headers, Unix seconds of its time), then a line with
 * the mark.  What is behind the last mark is cut off when it is opened: so
 * records and mark are there together or not at all, as in a transaction of a
 * broker.  Files beside it say how the other side behaves:
 *
 *		PATH.down		it takes nothing
 *		PATH.refuse		it refuses records whose value has one of these lines in it
 *		PATH.hold		it has taken batches, but says so only when this is gone
 *		PATH.nomark		it has lost its mark
 *		PATH.broken		it cannot go on without people
 *
 * Libraries of a server find the sink by the rendezvous variable that
 * connector.c looks at.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connector/sink.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

#define MAX_BATCHES	3

typedef struct FileSink
{
	KdaSink		sink;			/* first */
	char	   *path;
	bool		exactly_once;
	int			fd;
	KdaSealedBatch *batches[MAX_BATCHES];	/* under way, oldest first */
	bool		written[MAX_BATCHES];
	int			n;
} FileSink;

static bool
there(FileSink *s, const char *suffix)
{
	struct stat st;

	return stat(psprintf("%s.%s", s->path, suffix), &st) == 0;
}

/* Finds the last mark and cuts off what is behind it. */
static void
look(FileSink *s)
{
	off_t		size = lseek(s->fd, 0, SEEK_END);
	char	   *all = palloc(size + 1);
	char	   *end = all;

	if (pread(s->fd, all, size, 0) != size)
		elog(ERROR, "could not read \"%s\": %m", s->path);
	all[size] = '\0';
	for (char *line = all; *line;)
	{
		char	   *next = strchr(line, '\n');
		unsigned	timeline,
					high,
					low;
		long long	number;

		if (next == NULL)
			break;
		if (sscanf(line, "mark\t%u\t%X/%X\t%lld", &timeline, &high, &low, &number) == 4)
		{
			s->sink.has_mark = true;
			s->sink.found_mark.timeline = timeline;
			s->sink.found_mark.lsn = ((uint64) high << 32) | low;
			s->sink.found_mark.number = number;
			end = next + 1;
		}
		line = next + 1;
	}
	if (ftruncate(s->fd, end - all) != 0)
		elog(ERROR, "could not cut \"%s\": %m", s->path);
	lseek(s->fd, 0, SEEK_END);
	pfree(all);
	if (!s->exactly_once || there(s, "nomark"))
		s->sink.has_mark = false;
}

static KdaSink *
file_open(const KdaSinkConfig *config)
{
	FileSink   *s = palloc0(sizeof(FileSink));

	s->path = pstrdup(config->topic);
	s->exactly_once = config->exactly_once;
	s->fd = open(s->path, O_RDWR | O_CREAT, 0600);
	if (s->fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open \"%s\": %m", s->path)));
	look(s);
	s->sink.marks_missing = !s->sink.has_mark && s->exactly_once && config->delivered.number > 0;
	return &s->sink;
}

static void
file_close(KdaSink *sink, int deadline_ms)
{
	close(((FileSink *) sink)->fd);
}

static bool
is_refused(FileSink *s, KdaOutRecord *record)
{
	FILE	   *f = fopen(psprintf("%s.refuse", s->path), "r");
	char		word[256];
	bool		refused = false;

	if (f == NULL)
		return false;
	while (!refused && fgets(word, sizeof(word), f))
	{
		word[strcspn(word, "\n")] = '\0';
		refused = word[0] && record->value && strstr(record->value, word);
	}
	fclose(f);
	return refused;
}

static void
put_batch(FileSink *s, KdaSealedBatch *batch)
{
	StringInfoData out;

	initStringInfo(&out);
	for (int i = 0; i < batch->n; i++)
	{
		KdaOutRecord *r = &batch->records[i];

		if (is_refused(s, r))
		{
			r->refused = "the file does not like it";
			continue;
		}
		appendStringInfo(&out, INT64_FORMAT "\t%s\t%s\t%s\t%s\t" INT64_FORMAT "\n", batch->first + i, r->key ? r->key : "-",
						 r->value ? r->value : "-", r->headers ? r->headers : "-", r->hash_key ? r->hash_key : "-",
						 (int64) r->time / USECS_PER_SEC + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY);
	}
	appendStringInfo(&out, "mark\t%u\t%X/%X\t" INT64_FORMAT "\n", batch->mark.timeline, LSN_FORMAT_ARGS(batch->mark.lsn), batch->mark.number);
	if (write(s->fd, out.data, out.len) != out.len)
		elog(PANIC, "could not write \"%s\": %m", s->path);
	pfree(out.data);
}

static void
file_service(KdaSink *sink)
{
	FileSink   *s = (FileSink *) sink;
	bool		down = there(s, "down");
	bool		hold = there(s, "hold");

	sink->failed = there(s, "broken");
	strlcpy(sink->error, sink->failed ? "the file is broken" : down ? "the file is down" : "", sizeof(sink->error));
	if (sink->failed)
		return;
	if (down)
	{
		sink->retries++;
		return;
	}
	for (int i = 0; i < s->n; i++)
	{
		if (!s->written[i])
			put_batch(s, s->batches[i]);
		s->written[i] = true;
		if (!hold)
			s->batches[i]->done = true;
	}
	sink->ready = true;
}

static void
file_send(KdaSink *sink, KdaSealedBatch *batch)
{
	FileSink   *s = (FileSink *) sink;

	s->written[s->n] = false;
	s->batches[s->n++] = batch;
}

static void
file_release(KdaSink *sink, KdaSealedBatch *batch)
{
	FileSink   *s = (FileSink *) sink;

	s->n--;
	memmove(s->batches, s->batches + 1, sizeof(s->batches[0]) * s->n);
	memmove(s->written, s->written + 1, sizeof(s->written[0]) * s->n);
}

static const KdaSinkOps ops = {
	.type = "file",
	.exactly_once = true,
	.batch_records = 100,
	.batch_bytes = 64 * 1024,
	.max_batches = MAX_BATCHES,
	.open = file_open,
	.close = file_close,
	.service = file_service,
	.send = file_send,
	.release = file_release
};

void
_PG_init(void)
{
	*(const KdaSinkOps **) find_rendezvous_variable("kda_stream_sink") = &ops;
}
