/*-------------------------------------------------------------------------
 *
 * module.c
 *	  A library for test_aws_server.py: AWS's services as a server process
 *	  reaches them, which no SQL function of the extension does.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include "connector/aws.h"
#include "connector/aws_access.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

/* The extension's own are not visible outside of it. */
char	   *kda_machine_credentials_role;
int			kda_retry_max_interval_ms;

/* As a worker's loop does: the pipe is all that there is to wait for. */
static void
await_all(KdaAwsCall **calls, int n, int fd)
{
	for (;;)
	{
		char		bytes[100];
		int			left = 0;

		for (int i = 0; i < n; i++)
			left += !kda_aws_call_done(calls[i]);
		if (left == 0)
			return;
		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH, fd, -1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		while (read(fd, bytes, sizeof(bytes)) > 0)
			;
	}
}

PG_FUNCTION_INFO_V1(who_am_i);

/* who_am_i(server oid, user oid, calls int): asks STS, by so many calls at once; an ARN, or what is wrong. */
Datum
who_am_i(PG_FUNCTION_ARGS)
{
	static int	pipe_fds[2] = {-1, -1};
	int			n = PG_GETARG_INT32(2);
	KdaAwsAccess *access;
	KdaAwsService sts = {0};
	KdaAwsCall **calls = palloc0(sizeof(KdaAwsCall *) * n);
	KdaText		arn = {0};
	char	   *volatile result = NULL;

	kda_machine_credentials_role = GetConfigOptionByName("kda_stream.machine_credentials_role", NULL, false);
	kda_retry_max_interval_ms = 1000;
	if (pipe_fds[0] < 0)
	{
		if (pipe(pipe_fds) != 0)
			elog(ERROR, "no pipe");
		fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
		fcntl(pipe_fds[1], F_SETFL, O_NONBLOCK);
	}
	access = kda_aws_access(PG_GETARG_OID(0), PG_GETARG_OID(1), pipe_fds[1]);
	if (kda_aws_access(PG_GETARG_OID(0), PG_GETARG_OID(1), pipe_fds[1]) != access)
		elog(ERROR, "it is not shared");
	sts.http = access->http;
	sts.endpoint = access->sts;
	sts.name = "sts";
	sts.region = access->region;
	sts.credentials = access->credentials;
	sts.max_attempts = 2;
	sts.retry_max_ms = 1000;
	PG_TRY();
	{
		for (int i = 0; i < n; i++)
		{
			calls[i] = kda_aws_call_new(&sts);
			calls[i]->content_type = "application/x-www-form-urlencoded; charset=utf-8";
			kda_text_adds(&calls[i]->body, "Action=GetCallerIdentity&Version=2011-06-15");
			kda_aws_call_begin(calls[i]);
		}
		await_all(calls, n, pipe_fds[0]);
		result = NULL;
		for (int i = 0; i < n && (result == NULL || calls[i - 1]->error.trouble == KDA_AWS_FINE); i++)
			if (calls[i]->error.trouble != KDA_AWS_FINE)
				result = psprintf("%d %s", calls[i]->error.trouble, calls[i]->error.message);
			else if (kda_aws_xml_element(kda_text_str(&calls[i]->answer), calls[i]->answer.len, "Arn", &arn))
				result = pstrdup(kda_text_str(&arn));
	}
	PG_FINALLY();
	{
		for (int i = 0; i < n; i++)
			kda_aws_call_free(calls[i]);
		kda_text_free(&arn);
	}
	PG_END_TRY();
	if (result == NULL)
		elog(ERROR, "an answer without an ARN");
	PG_RETURN_TEXT_P(cstring_to_text(result));
}
