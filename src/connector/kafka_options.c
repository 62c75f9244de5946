/*-------------------------------------------------------------------------
 *
 * kafka_options.c
 *	  The librdkafka properties that servers and user mappings may set, by
 *	  their own names (librdkafka's CONFIGURATION.md).  What decides about
 *	  exactly-once, and what runs programs, is not among them.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <librdkafka/rdkafka.h>

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "connector/aws_options.h"
#include "connector/kafka.h"
#include "connector/kafka_iam.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"

#define SERVER	1
#define USER	2
#define FILE_	4				/* names a file of the server's machine */
#define READS	8				/* a consumer's alone */
#define WRITES	16				/* a producer's alone */

typedef struct Property
{
	const char *name;
	int			flags;
} Property;

static const Property properties[] = {
	{"bootstrap.servers", SERVER},
	{"security.protocol", SERVER},
	{"sasl.mechanism", SERVER},
	{"sasl.mechanisms", SERVER},
	{"sasl.username", USER},
	{"sasl.password", USER},
	{"ssl.ca.location", SERVER | FILE_},
	{"ssl.ca.pem", SERVER},
	{"ssl.certificate.location", SERVER | USER | FILE_},
	{"ssl.certificate.pem", SERVER | USER},
	{"ssl.key.location", SERVER | USER | FILE_},
	{"ssl.key.pem", USER},
	{"ssl.key.password", USER},
	{"ssl.keystore.location", SERVER | USER | FILE_},
	{"ssl.keystore.password", USER},
	{"ssl.crl.location", SERVER | FILE_},
	{"ssl.cipher.suites", SERVER},
	{"ssl.curves.list", SERVER},
	{"ssl.sigalgs.list", SERVER},
	{"ssl.endpoint.identification.algorithm", SERVER},
	{"enable.ssl.certificate.verification", SERVER},
	{"isolation.level", SERVER | READS},
	{"client.id", SERVER},
	{"client.rack", SERVER},
	{"fetch.wait.max.ms", SERVER | READS},
	{"fetch.min.bytes", SERVER | READS},
	{"fetch.error.backoff.ms", SERVER | READS},
	{"max.in.flight", SERVER},
	{"topic.metadata.refresh.fast.interval.ms", SERVER},
	{"metadata.max.age.ms", SERVER},
	{"socket.timeout.ms", SERVER},
	{"socket.send.buffer.bytes", SERVER},
	{"socket.receive.buffer.bytes", SERVER},
	{"socket.keepalive.enable", SERVER},
	{"socket.nagle.disable", SERVER},
	{"socket.max.fails", SERVER},
	{"socket.connection.setup.timeout.ms", SERVER},
	{"broker.address.ttl", SERVER},
	{"broker.address.family", SERVER},
	{"connections.max.idle.ms", SERVER},
	{"reconnect.backoff.ms", SERVER},
	{"reconnect.backoff.max.ms", SERVER},
	{"retry.backoff.ms", SERVER},
	{"api.version.request", SERVER},
	{"api.version.request.timeout.ms", SERVER},
	{"broker.version.fallback", SERVER},
	{"compression.codec", SERVER | WRITES},
	{"compression.type", SERVER | WRITES},
	{"compression.level", SERVER | WRITES},
	{"linger.ms", SERVER | WRITES},
	{"batch.size", SERVER | WRITES},
	{"batch.num.messages", SERVER | WRITES},
	{"message.max.bytes", SERVER | WRITES},
	{"partitioner", SERVER | WRITES},
	{"sticky.partitioning.linger.ms", SERVER | WRITES},
	{"request.timeout.ms", SERVER | WRITES},
	{"transaction.timeout.ms", SERVER | WRITES},
};

static const Property *
find_property(const char *name)
{
	for (int i = 0; i < lengthof(properties); i++)
		if (strcmp(properties[i].name, name) == 0)
			return &properties[i];
	return NULL;
}

bool
kda_kafka_property_fits(const char *name, bool producer)
{
	const Property *p = find_property(name);

	return p && !(p->flags & (producer ? READS : WRITES));
}

static char *
allowed(int flag)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < lengthof(properties); i++)
		if (properties[i].flags & flag)
			appendStringInfo(&s, "%s%s", s.len ? ", " : "", properties[i].name);
	return s.data;
}

/*
 * Kerberos, the library's default, would run kinit and need files of the
 * server: how somebody authenticates must be said, and is by user and password.
 */
static void
check_mechanism(List *options)
{
	static const char *const known[] = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", KDA_MSK_IAM};
	const char *protocol = NULL;
	bool		sasl = false;
	const char *mechanism = NULL;
	bool		fits = false;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "security.protocol") == 0)
		{
			protocol = defGetString(def);
			sasl = pg_strncasecmp(protocol, "sasl", 4) == 0;
		}
		else if (strcmp(def->defname, "sasl.mechanism") == 0 || strcmp(def->defname, "sasl.mechanisms") == 0)
			mechanism = defGetString(def);
	}
	for (int i = 0; mechanism && i < lengthof(known); i++)
		fits |= strcmp(mechanism, known[i]) == 0;
	if (mechanism ? !fits : sasl)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 mechanism ? errmsg("invalid value for property \"sasl.mechanism\": \"%s\"", mechanism) :
				 errmsg("security.protocol with SASL needs property \"sasl.mechanism\""),
				 errhint("Mechanisms: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, AWS_MSK_IAM.")));
	if (mechanism && strcmp(mechanism, KDA_MSK_IAM) == 0 && protocol && pg_strcasecmp(protocol, "sasl_ssl") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("security.protocol \"%s\" does not go with sasl.mechanisms \"%s\"", protocol, mechanism),
				 errdetail("Whoever reads what is sent could sign in for a quarter of an hour."),
				 errhint("Leave it out, or give \"security.protocol\" 'SASL_SSL'.")));
}

/* A property of the library's. */
static void
check_property(DefElem *def, bool user_mapping)
{
	int			flag = user_mapping ? USER : SERVER;
	const Property *p = find_property(def->defname);
	rd_kafka_conf_t *conf;
	char		why[256];
	rd_kafka_conf_res_t res;

	if (p == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("property \"%s\" cannot be set for a Kafka %s", def->defname,
						user_mapping ? "user mapping" : "server"),
				 errhint("Properties: %s.", allowed(flag)),
				 errhidestmt(user_mapping), errhidecontext(user_mapping)));
	if (!(p->flags & flag))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("property \"%s\" belongs to a %s", p->name, user_mapping ? "server" : "user mapping"),
				 errhint(user_mapping ? "ALTER SERVER ... OPTIONS (ADD \"%s\" '...');" :
						 "CREATE USER MAPPING FOR ... SERVER ... OPTIONS (\"%s\" '...');", p->name),
				 errhidestmt(true), errhidecontext(true)));
	if ((p->flags & FILE_) && !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set property \"%s\"", p->name),
				 errdetail("It names a file of the server; that needs the rights of role pg_read_server_files."),
				 errhidestmt(user_mapping), errhidecontext(user_mapping)));
	if (def->arg == NULL)
		return;					/* ALTER ... DROP */
	if (strncmp(def->defname, "sasl.mechanism", 14) == 0 && strcmp(defGetString(def), KDA_MSK_IAM) == 0)
		return;					/* not the library's */

	/* librdkafka itself knows what a good value is; its message may hold the value */
	conf = rd_kafka_conf_new();
	res = rd_kafka_conf_set(conf, def->defname, defGetString(def), why, sizeof(why));
	rd_kafka_conf_destroy(conf);
	if (res != RD_KAFKA_CONF_OK)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 p->flags & SERVER ?
				 errmsg("invalid value for property \"%s\": %s", p->name, why) :
				 errmsg("invalid value for property \"%s\"", p->name),
				 errhidestmt(user_mapping), errhidecontext(user_mapping)));
}

void
kda_kafka_check_server(List *options)
{
	bool		iam = kda_kafka_iam_wanted(options);
	bool		bootstrap = false;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		bootstrap |= strcmp(def->defname, "bootstrap.servers") == 0;
		if (!kda_aws_has_option(def->defname, false))
			check_property(def, false);
		else if (iam)
			kda_aws_check_option(def, "kafka");
		else
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" is for sign-in with AWS's keys only", def->defname),
					 errhint("Give \"sasl.mechanisms\" '%s' beside it.", KDA_MSK_IAM)));
	}
	check_mechanism(options);
	if (!bootstrap)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("a Kafka server needs option \"bootstrap.servers\""),
				 errhint("OPTIONS (\"bootstrap.servers\" 'host:9092,...')")));
	if (iam)
	{
		KdaAwsServerOptions aws;

		kda_aws_server_options("kafka", options, &aws);
	}
}

void
kda_kafka_check_user_mapping(const ForeignServer *server, List *given, List *all)
{
	ListCell   *lc;

	if (kda_kafka_iam_wanted(server->options))
	{
		/* AWS's keys and nothing else: the rest of the mapping is not read */
		kda_aws_check_user_mapping(server, given, all);
		return;
	}

	foreach(lc, given)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (kda_aws_has_option(def->defname, true))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" is for sign-in with AWS's keys only", def->defname),
					 errhint("ALTER SERVER ... OPTIONS (ADD \"sasl.mechanisms\" '%s');", KDA_MSK_IAM),
					 errhidestmt(true), errhidecontext(true)));
		check_property(def, true);
	}
}
