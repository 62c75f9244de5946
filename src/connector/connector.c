/*-------------------------------------------------------------------------
 *
 * connector.c
 *	  Which outside systems there are, and the raw batch that all of them fill.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "connector/connector.h"
#include "connector/kafka.h"
#include "utils/memutils.h"

const KdaSourceOps *
kda_source_ops(const char *type)
{
	if (strcmp(type, "kafka") == 0)
		return &kda_kafka_ops;
	return NULL;
}

static void
check_type(const char *type)
{
	static const char *const later[] = {"kinesis", "firehose", "s3", "lambda", "opensearch", "redshift"};

	if (kda_source_ops(type))
		return;
	for (int i = 0; i < lengthof(later); i++)
		if (strcmp(type, later[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("servers of type \"%s\" are not part of this release", type),
					 errhint("This release reads from servers of type 'kafka'.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized server type \"%s\"", type),
			 errhint("CREATE SERVER name TYPE 'kafka' ...")));
}

void
kda_connector_check_server(const char *type, List *options)
{
	check_type(type);
	kda_kafka_check_options(options, false);
}

void
kda_connector_check_user_mapping(const char *type, List *options)
{
	check_type(type);
	kda_kafka_check_options(options, true);
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
