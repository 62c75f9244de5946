/*-------------------------------------------------------------------------
 *
 * options.h
 *	  The options of streams, columns and servers: one static table feeds the
 *	  validator, the hints and kda_stream_options_get().
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_OPTIONS_H
#define KDA_OPTIONS_H

#include "kda_stream.h"
#include "connector/connector.h"
#include "foreign/foreign.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

typedef enum KdaFormatKind
{
	KDA_FORMAT_JSON,
	KDA_FORMAT_CSV,
	KDA_FORMAT_TEXT,
	KDA_FORMAT_BYTEA
} KdaFormatKind;

typedef enum KdaMetaKind
{
	KDA_META_NONE,
	KDA_META_SHARD,
	KDA_META_POSITION,
	KDA_META_ARRIVAL,
	KDA_META_KEY,
	KDA_META_HEADERS
} KdaMetaKind;

typedef enum KdaTimeFormat
{
	KDA_TIME_ISO8601,
	KDA_TIME_EPOCH,
	KDA_TIME_EPOCH_MS
} KdaTimeFormat;

typedef struct KdaColumnOptions
{
	char	   *path;			/* JSON path or NULL: the column's name */
	KdaMetaKind meta;
	KdaTimeFormat time_format;
} KdaColumnOptions;

/* All options of a stream with defaults filled in; palloc'd. */
typedef struct KdaStreamOptions
{
	Oid			relid;
	Oid			owner;
	Oid			serverid;
	char	   *server_type;	/* NULL: in the database */
	char	   *topic;
	KdaFormatKind format;
	char	   *row_path;		/* NULL: the record is the row */
	char		delimiter;
	bool		header;
	char	   *null_text;
	AttrNumber	rowtime_attno;	/* 0: no declared time attribute */
	char	   *time_zone;		/* "UTC" */
	bool		time_zone_is_utc;
	int64		watermark_us;	/* delay >= 0 */
	int64		max_ahead_us;	/* or KDA_NEVER_US */
	int64		allowed_lateness_us;
	int64		idle_timeout_us;	/* or KDA_NEVER_US */
	KdaShardStart start;
	char	   *start_text;		/* as given */
	int64		retention_us;
	bool		on_error_stop;
	bool		writable;
	bool		durable;
	char	   *worker;			/* "main" */
	int			parallelism;
	char	   *compression;	/* NULL: none */
	/* of a stream that is written */
	bool		writable_given;	/* option writable was, so that a query that reads the stream changes nothing */
	AttrNumber *keys;			/* columns of option key, else the one with meta 'key' */
	int			nkeys;
	AttrNumber	headers_attno;	/* jsonb or json; 0: none */
	AttrNumber	hash_key_attno; /* 0: none */
	bool		at_least_once;	/* option delivery asks for no more */
	bool		exactly_once;	/* … asks for it */
	bool		upsert;			/* option changelog */
	int			batch_records;	/* 0: as many as are good for the sink */
	int64		batch_bytes;
	bool		ordered;
	char	   *sequence_key;	/* "": none */
	char	   *notify;			/* channel; NULL: none */
	KdaColumnOptions *columns;	/* [natts] */
} KdaStreamOptions;

extern KdaStreamOptions *kda_stream_options_get(Oid relid);
/* Option worker alone, without a lock on the stream. */
extern char *kda_stream_worker_name(Oid relid);
/* Option parallelism: how many processes of its worker share its shards. */
extern int	kda_stream_parallelism(Oid relid);

/* Same in everything that a worker has built upon? */
extern bool kda_stream_options_equal(const KdaStreamOptions *a, const KdaStreamOptions *b, int natts);

/* The mapping of the user or of PUBLIC; NULL where there is none. */
extern UserMapping *kda_user_mapping(Oid userid, Oid serverid);

/* 'earliest', 'latest', 'trim_horizon', 'now' or a timestamp; ereports otherwise */
extern KdaShardStart kda_parse_start(const char *value);

/* Is this foreign table one of ours? */
extern bool kda_is_stream(Oid relid);

/* A value of the time column, timestamp or timestamptz, as a time. */
extern KdaTime kda_rowtime_of(const KdaStreamOptions *options, Oid type, Datum value);

/* The other way. */
extern Datum kda_rowtime_value(const KdaStreamOptions *options, Oid type, KdaTime time);

/*---- checks after a statement is done; ereport */
extern bool kda_is_our_server(Oid serverid);
extern void kda_check_server(Oid serverid);
/* options: those of the statement */
extern void kda_check_user_mapping(Oid serverid, const RoleSpec *user, List *options);
/* Do the options of a stream and its columns fit together and the server? */
extern void kda_check_stream(Oid relid);

#endif							/* KDA_OPTIONS_H */
