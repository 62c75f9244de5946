/*-------------------------------------------------------------------------
 *
 * connector.c
 *	  Which outside systems there are, and the raw batch that all of them fill.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "connector/aws_options.h"
#include "connector/connector.h"
#include "connector/http.h"
#include "connector/kafka.h"
#include "connector/kafka_iam.h"
#include "connector/kinesis.h"
#include "connector/kinesis_sink.h"
#include "connector/registry.h"
#include "connector/sink.h"
#include "fmgr.h"
#include "utils/memutils.h"

void
kda_connector_init(void)
{
	kda_http_init();
}

static void
check_kafka_server(const ForeignServer *server)
{
	kda_kafka_check_server(server->options);
}

static void
check_kafka_user_mapping(const ForeignServer *server, List *given, List *all)
{
	kda_kafka_check_user_mapping(server, given, all);
}

typedef struct ConnectorType
{
	const char *name;
	const KdaSourceOps *source; /* NULL: its streams cannot be read yet */
	const KdaSinkOps *sink;		/* NULL: … written */
	void		(*check_server) (const ForeignServer *server);
	void		(*check_user_mapping) (const ForeignServer *server, List *given, List *all);
	void		(*check_stream) (const char *stream_name, const char *topic, int parallelism);	/* NULL: nothing to look at */
} ConnectorType;

static const ConnectorType types[] = {
	{"kafka", &kda_kafka_ops, &kda_kafka_sink_ops, check_kafka_server, check_kafka_user_mapping, NULL},
	{"kinesis", &kda_kinesis_ops, &kda_kinesis_sink_ops, kda_aws_check_server, kda_aws_check_user_mapping, kda_kinesis_check_stream},
	{KDA_REGISTRY_TYPE, NULL, NULL, kda_registry_check_server, kda_registry_check_user_mapping, NULL},
};

/*
 * A type of outside system that another library of this server brings: its
 * KdaSinkOps are where this variable points.  Tests have one whose other side
 * is a file.
 */
static const KdaSinkOps *
foreign_sink(const char *name)
{
	const KdaSinkOps *ops = *(const KdaSinkOps **) find_rendezvous_variable("kda_stream_sink");

	return ops && strcmp(ops->type, name) == 0 ? ops : NULL;
}

static void
check_any_server(const ForeignServer *server)
{
}

static void
check_any_user_mapping(const ForeignServer *server, List *given, List *all)
{
}

static const ConnectorType *
find_type(const char *name)
{
	static ConnectorType foreign = {NULL, NULL, NULL, check_any_server, check_any_user_mapping};

	foreign.sink = foreign_sink(name);
	if (foreign.sink)
	{
		foreign.name = foreign.sink->type;
		return &foreign;
	}
	for (int i = 0; i < lengthof(types); i++)
		if (strcmp(types[i].name, name) == 0)
			return &types[i];
	return NULL;
}

const KdaSourceOps *
kda_source_ops(const char *type)
{
	const ConnectorType *found = find_type(type);

	return found ? found->source : NULL;
}

const KdaSinkOps *
kda_sink_ops(const char *type)
{
	const ConnectorType *found = find_type(type);

	return found ? found->sink : NULL;
}

static const ConnectorType *
get_type(const char *name)
{
	static const char *const later[] = {"firehose", "s3", "lambda", "opensearch", "redshift"};
	const ConnectorType *type = find_type(name);

	if (type)
		return type;
	for (int i = 0; i < lengthof(later); i++)
		if (strcmp(name, later[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("servers of type \"%s\" are not part of this release", name),
					 errhint("This release reads from servers of type 'kafka' and 'kinesis'.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized server type \"%s\"", name),
			 errhint("CREATE SERVER name TYPE 'kafka' ...")));
}

void
kda_connector_check_server(const ForeignServer *server)
{
	get_type(server->servertype)->check_server(server);
}

void
kda_connector_check_user_mapping(const ForeignServer *server, List *given, List *all)
{
	get_type(server->servertype)->check_user_mapping(server, given, all);
}

bool
kda_connector_keeps_mapping(const ForeignServer *server)
{
	const KdaSourceOps *ops = server->servertype ? kda_source_ops(server->servertype) : NULL;

	return ops && (ops->reads_mapping || (ops == &kda_kafka_ops && kda_kafka_iam_wanted(server->options)));
}

void
kda_connector_check_stream(const char *type, const char *stream_name, const char *topic, int parallelism)
{
	const ConnectorType *found = find_type(type);

	if (found && found->check_stream)
		found->check_stream(stream_name, topic, parallelism);
	if (kda_source_ops(type) == NULL && kda_sink_ops(type) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" cannot be on a server of type \"%s\"", stream_name, type),
				 errdetail("Streams of such servers are not part of this release."),
				 errhint("This release reads from servers of type 'kafka' and 'kinesis'.")));
}

bool
kda_connector_has_marks(const char *type)
{
	const KdaSourceOps *ops = kda_source_ops(type);

	return ops && ops->marks;
}

const char *
kda_raw_place(const KdaRawRecord *record, char *buffer)
{
	if (record->mark == NULL)
		snprintf(buffer, KDA_PLACE_SIZE, INT64_FORMAT, record->position);
	else if (record->mark_sub < 0)
		return record->mark;
	else
		snprintf(buffer, KDA_PLACE_SIZE, "%s/%d", record->mark, record->mark_sub);
	return buffer;
}

void
kda_connector_check_writing(const char *type, const char *stream_name, const KdaWriting *how)
{
	const KdaSinkOps *ops = type ? kda_sink_ops(type) : NULL;

	if (ops == &kda_kinesis_sink_ops)
		kda_kinesis_check_writing(stream_name, how->batch_records, how->batch_bytes, how->headers, how->compression);
	if (how->exactly_once && ops && !ops->exactly_once)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("delivery 'exactly_once' is not possible to a server of type \"%s\"", type),
				 errdetail("Stream \"%s\" is on such a server.", stream_name),
				 errhint("Use delivery 'at_least_once'.")));
}

KdaRawBatch *
kda_raw_batch_create(MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "kda raw batch", ALLOCSET_SMALL_SIZES);
	KdaRawBatch *batch = MemoryContextAllocZero(context, sizeof(KdaRawBatch));

	batch->context = context;
	return batch;
}

KdaRawRecord *
kda_raw_batch_add(KdaRawBatch *batch, void *handle)
{
	if (batch->n == batch->capacity)
	{
		batch->capacity = Max(batch->capacity * 2, 1024);
		if (batch->records == NULL)
		{
			batch->records = MemoryContextAllocHuge(batch->context, sizeof(KdaRawRecord) * batch->capacity);
			batch->handles = MemoryContextAllocHuge(batch->context, sizeof(void *) * batch->capacity);
		}
		else
		{
			batch->records = repalloc_huge(batch->records, sizeof(KdaRawRecord) * batch->capacity);
			batch->handles = repalloc_huge(batch->handles, sizeof(void *) * batch->capacity);
		}
	}
	batch->handles[batch->n] = handle;
	memset(&batch->records[batch->n], 0, sizeof(KdaRawRecord));
	return &batch->records[batch->n++];
}
