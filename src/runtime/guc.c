/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  The parameters kda_stream.*.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <limits.h>

#include "runtime/runtime.h"
#include "utils/guc.h"

bool		kda_enabled = true;
bool		kda_extend_grammar = true;
char	   *kda_databases = NULL;
int			kda_max_workers = 4;
int			kda_commit_interval_ms = 200;
int			kda_commit_interval_max_ms = 5000;
int			kda_batch_records = 100000;
int			kda_batch_bytes_kb = 64 * 1024;
int			kda_state_cache_kb = 256 * 1024;
int			kda_buffer_size_kb = 1024 * 1024;
int			kda_outbox_size_kb = 1024 * 1024;
int			kda_error_stream_size_kb = 1024 * 1024;
int			kda_error_retention_min = 14 * 24 * 60;
int			kda_retry_max_interval_ms = 30000;
int			kda_fetch_memory_kb = 256 * 1024;
int			kda_query_timeout_ms = 0;
int			kda_max_record_bytes = 16 * 1024 * 1024;
int			kda_max_json_depth = 512;
char	   *kda_machine_credentials_role = NULL;
bool		kda_log_payloads = false;

void
kda_guc_init(void)
{
	DefineCustomBoolVariable("kda_stream.enabled",
							 "Reads and delivers streams; off for clones of a production server.",
							 NULL, &kda_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("kda_stream.extend_grammar",
							 "Understands CREATE STREAM and its like as bare SQL.",
							 "When off, kda.execute(text) is the way in.",
							 &kda_extend_grammar, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("kda_stream.databases",
							   "Comma-separated databases whose streams are run; empty: all that have the extension.",
							   NULL, &kda_databases, "", PGC_SIGHUP, GUC_LIST_INPUT, NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.max_workers",
							"Greatest number of pipeline workers in the cluster.",
							NULL, &kda_max_workers, 4, 1, 1024, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.commit_interval",
							"Time between two commits of a worker.",
							NULL, &kda_commit_interval_ms, 200, 1, 60000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.commit_interval_max",
							"The commit interval stretches up to this when commits cost too much.",
							NULL, &kda_commit_interval_max_ms, 5000, 1, 600000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.batch_records",
							"Greatest number of records of a stream in one commit.",
							NULL, &kda_batch_records, 100000, 1, 10000000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.batch_bytes",
							"Greatest size of a stream's records in one commit.",
							NULL, &kda_batch_bytes_kb, 64 * 1024, 64, MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.state_cache",
							"Memory of a worker for groups of open windows; the rest is read back when needed.",
							NULL, &kda_state_cache_kb, 256 * 1024, 1024, MAX_KILOBYTES, PGC_SIGHUP,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.buffer_size",
							"Greatest size of a stream's buffer.",
							NULL, &kda_buffer_size_kb, 1024 * 1024, 1024, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.outbox_size",
							"Greatest size of an output's undelivered rows.",
							NULL, &kda_outbox_size_kb, 1024 * 1024, 1024, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.error_stream_size",
							"Greatest size of kda.error_stream in a database.",
							NULL, &kda_error_stream_size_kb, 1024 * 1024, 64, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.error_retention",
							"How long rows of kda.error_stream are kept.",
							NULL, &kda_error_retention_min, 14 * 24 * 60, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.retry_max_interval",
							"Longest pause before something that failed is tried again.",
							NULL, &kda_retry_max_interval_ms, 30000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.fetch_memory",
							"Memory of a worker for records that have been fetched ahead.",
							NULL, &kda_fetch_memory_kb, 256 * 1024, 4096, MAX_KILOBYTES, PGC_SIGHUP,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.query_timeout",
							"Longest time that a continuous query may take for a batch; 0: no limit.",
							NULL, &kda_query_timeout_ms, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.max_record_bytes",
							"Larger records go to kda.error_stream.",
							NULL, &kda_max_record_bytes, 16 * 1024 * 1024, 1024, 512 * 1024 * 1024, PGC_SIGHUP,
							GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("kda_stream.max_json_depth",
							"Records that are nested deeper go to kda.error_stream.",
							NULL, &kda_max_json_depth, 512, 1, 10000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("kda_stream.machine_credentials_role",
							   "Role whose members may use the machine's own credentials; empty: superusers.",
							   NULL, &kda_machine_credentials_role, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("kda_stream.log_payloads",
							 "Writes the bytes of refused records to the server's log.",
							 NULL, &kda_log_payloads, false, PGC_SUSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("kda_stream");
	MarkGUCPrefixReserved("kda");
}
