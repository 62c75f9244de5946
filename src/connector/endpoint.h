/*-------------------------------------------------------------------------
 *
 * endpoint.h
 *	  Addresses of HTTP services: which may be named, and which connected to.
 *
 * Whoever may create a server chooses what the database server connects to.
 * What lets a machine prove who it is (metadata services, link-local addresses)
 * is not among it: those are for the machine's own credentials only.  A name is
 * checked when it is given and, because it can mean anything later, each
 * address once more when a connection to it is made.
 *
 * No PostgreSQL is called here; tests run it outside of a server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ENDPOINT_H
#define KDA_ENDPOINT_H

#include "postgres.h"

#include <sys/socket.h>

typedef enum KdaReach
{
	KDA_REACH_USER,				/* an option of a server: https anywhere but metadata services, http to this machine */
	KDA_REACH_PROXY,			/* the same, with http everywhere: what goes through is TLS */
	KDA_REACH_MACHINE			/* of the server's environment: metadata services, too */
} KdaReach;

typedef struct KdaEndpoint
{
	char		base[320];		/* "https://host:port", the host in one spelling */
	char		host[300];		/* as in a Host header: with the port unless it is the scheme's own */
	char		path[1024];		/* with a query; "/" unless KDA_REACH_MACHINE */
	bool		plain;			/* http */
	bool		default_port;	/* the scheme's own */
	bool		loopback;		/* an address of this machine, or localhost */
	KdaReach	reach;
} KdaEndpoint;

/* False: url may not be used, and why says in a sentence why (never showing url itself). */
extern bool kda_endpoint_parse(const char *url, KdaReach reach, KdaEndpoint *out, char *why, size_t why_size);

/* May a connection to this address be made?  plain: without TLS. */
extern bool kda_endpoint_may_connect(const struct sockaddr *address, KdaReach reach, bool plain);

/* "us-east-1" */
extern bool kda_region_is_valid(const char *region);

/* AWS's own endpoint of a service in a (valid) region. */
extern void kda_endpoint_of_aws(const char *service, const char *region, KdaEndpoint *out);

#endif							/* KDA_ENDPOINT_H */
