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
#include "connector/registry.h"
#include "utils/memutils.h"

void
kda_connector_init(void)
{
	kda_http_init();
}

static void
check_kafka_server(const ForeignServer *server)
{
	kda_kafka_check_options(server->options, false);
}

static void
check_kafka_user_mapping(const ForeignServer *server, List *given, List *all)
{
	kda_kafka_check_options(given, true);
}

typedef struct ConnectorType
{
	const char *name;
	const KdaSourceOps *source; /* NULL: its streams cannot be read yet */
	void		(*check_server) (const ForeignServer *server);
	void		(*check_user_mapping) (const ForeignServer *server, List *given, List *all);
} ConnectorType;

static const ConnectorType types[] = {
	{"kafka", &kda_kafka_ops, check_kafka_server, check_kafka_user_mapping},
	{KDA_REGISTRY_TYPE, NULL, kda_registry_check_server, kda_registry_check_user_mapping},
	{"kinesis", NULL, kda_aws_check_server, kda_aws_check_user_mapping},
};

static const ConnectorType *
find_type(const char *name)
{
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
					 errhint("This release reads from servers of type 'kafka'.")));
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

void
kda_connector_check_stream(const char *type, const char *stream_name)
{
	if (kda_source_ops(type) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" cannot be on a server of type \"%s\"", stream_name, type),
				 errdetail("Streams of such servers are not part of this release."),
				 errhint("This release reads from servers of type 'kafka'.")));
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
