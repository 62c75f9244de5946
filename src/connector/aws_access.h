/*-------------------------------------------------------------------------
 *
 * aws_access.h
 *	  From a server and a user to connections and keys for a service of AWS's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AWS_ACCESS_H
#define KDA_AWS_ACCESS_H

#include "kda_stream.h"

#include "connector/credentials.h"
#include "connector/endpoint.h"
#include "connector/http.h"

typedef struct KdaAwsAccess
{
	KdaHttp    *http;
	KdaCredentials *credentials;
	char		region[40];
	KdaEndpoint endpoint;		/* of the service that the server's type names */
	KdaEndpoint sts;

	/* private */
	Oid			serverid;
	Oid			userid;
	int			wake_fd;
	char		options_hash[65];
	int			users;
	struct KdaAwsAccess *next;
} KdaAwsAccess;

/*
 * Access to a server for a user with his mapping, or that of PUBLIC; without
 * keys in it the machine's credentials are used, if the server's owner may.
 * Whoever asks for the same in this process gets the same, so that one refresh
 * of keys serves all.  Belongs to CurrentMemoryContext: with that it ends, also
 * on abort, and so does what is under way.
 *
 * Reads the catalog, so it needs a transaction; waits for nothing.  ereports
 * when a right or an option is missing.  wake_fd: see KdaHttpConfig.
 */
extern KdaAwsAccess *kda_aws_access(Oid serverid, Oid userid, int wake_fd);

#endif							/* KDA_AWS_ACCESS_H */
