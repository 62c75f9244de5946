/*-------------------------------------------------------------------------
 *
 * aws_options.h
 *	  The options of servers and user mappings of AWS's services: one table
 *	  feeds the validator, its hints and whoever opens a connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AWS_OPTIONS_H
#define KDA_AWS_OPTIONS_H

#include "kda_stream.h"

#include "connector/endpoint.h"
#include "foreign/foreign.h"
#include "nodes/pg_list.h"

/* Of a server, with defaults filled in.  Strings are the options' own. */
typedef struct KdaAwsServerOptions
{
	const char *region;
	KdaEndpoint endpoint;		/* of the service that the server's type names */
	KdaEndpoint sts;
	const char *ca_file;
	const char *ca_pem;
	const char *proxy;			/* palloc'd, with its port */
} KdaAwsServerOptions;

/* options: all of the server's, as DefElem; ereports what is wrong with them. */
extern void kda_aws_server_options(const char *service, List *options, KdaAwsServerOptions *out);

extern void kda_aws_check_server(const ForeignServer *server);

/* Is there such an option of a user mapping, or of a server of another type that uses AWS's keys, too? */
extern bool kda_aws_has_option(const char *name, bool mapping);

/* Checks one option of a server; ereports. */
extern void kda_aws_check_option(DefElem *def, const char *type);

/* given: of the statement; all: of the mapping once it is done. */
extern void kda_aws_check_user_mapping(const ForeignServer *server, List *given, List *all);

/* May servers of this owner use what lets the machine in at AWS (kda_stream.machine_credentials_role)? */
extern bool kda_aws_may_use_machine(Oid owner);

#endif							/* KDA_AWS_OPTIONS_H */
