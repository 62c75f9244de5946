/*-------------------------------------------------------------------------
 *
 * sigv4.c
 *	  Signs requests outside of a server, for test_aws_signing.py: one request a
 *	  line, its fields in hex with a dot before (a lone "-": none):
 *
 *		time expires flags access_key secret_key token region service
 *		payload_hash method path query body [name value]...
 *
 *	  expires 0: in headers; flags: 1 path as it is, 2 token not signed.  Answers
 *	  with canonical request, string to sign, authorization, query.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <stdio.h>

#include "connector/sigv4.h"
#include "fields.h"

#define MAX_FIELDS 256

int
main(void)
{
	char	   *line = NULL;
	size_t		room = 0;

	while (getline(&line, &room, stdin) > 0)
	{
		char	   *fields[MAX_FIELDS];
		size_t		lens[MAX_FIELDS];
		int			n = 0;
		KdaHeader	headers[MAX_FIELDS / 2];
		KdaSigv4Request request = {0};
		KdaAwsKeys	keys;
		KdaSigv4	out = {0};
		bool		ok;

		for (char *f = strtok(line, " \n"); f && n < MAX_FIELDS; f = strtok(NULL, " \n"), n++)
			fields[n] = n < 3 ? strdup(f) : decode_field(f, &lens[n]);
		keys.access_key_id = fields[3];
		keys.secret_access_key = fields[4];
		keys.session_token = fields[5];
		request.region = fields[6];
		request.service = fields[7];
		request.payload_hash = fields[8];
		request.method = fields[9];
		request.path = fields[10];
		request.query = fields[11];
		request.body = fields[12];
		request.body_len = lens[12];
		request.path_as_is = (atoi(fields[2]) & 1) != 0;
		request.token_unsigned = (atoi(fields[2]) & 2) != 0;
		for (int i = 13; i + 1 < n; i += 2)
			headers[request.nheaders++] = (KdaHeader)
		{
			fields[i], fields[i + 1]
		};
		request.headers = headers;
		if (atoi(fields[1]) > 0)
			ok = kda_sigv4_presign(&request, &keys, atoll(fields[0]), atoi(fields[1]), &out);
		else
			ok = kda_sigv4_sign(&request, &keys, atoll(fields[0]), &out);
		if (!ok)
			printf("failed\n");
		else
		{
			show_text(&out.canonical_request, ' ');
			show_text(&out.string_to_sign, ' ');
			show_text(&out.authorization, ' ');
			show_text(&out.query, '\n');
		}
		fflush(stdout);
		kda_sigv4_free(&out);
		for (int i = 0; i < n; i++)
			free(fields[i]);
	}
	free(line);
	return 0;
}
