/*-------------------------------------------------------------------------
 *
 * aws_options.c
 *	  The options of servers and user mappings of AWS's services.
 *
 * Values of a user mapping are never shown, nor is an endpoint, in which
 * somebody may have put a password.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <openssl/pem.h>

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "connector/aws_options.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "utils/acl.h"

typedef enum Check
{
	C_REGION,
	C_ENDPOINT,
	C_PROXY,
	C_FILE,
	C_CERTIFICATES,
	C_KEY_ID,
	C_SECRET,					/* printable, without spaces */
	C_ROLE,
	C_EXTERNAL_ID
} Check;

typedef struct AwsOption
{
	const char *name;
	bool		mapping;		/* of a user mapping; else of a server */
	Check		check;
} AwsOption;

static const AwsOption aws_options[] = {
	{"region", false, C_REGION},
	{"endpoint", false, C_ENDPOINT},
	{"sts_endpoint", false, C_ENDPOINT},
	{"proxy", false, C_PROXY},
	{"ssl.ca.location", false, C_FILE},
	{"ssl.ca.pem", false, C_CERTIFICATES},
	{"access_key_id", true, C_KEY_ID},
	{"secret_access_key", true, C_SECRET},
	{"session_token", true, C_SECRET},
	{"role_arn", true, C_ROLE},
	{"external_id", true, C_EXTERNAL_ID},
};

static char *
names(bool mapping)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < lengthof(aws_options); i++)
		if (aws_options[i].mapping == mapping)
			appendStringInfo(&s, "%s%s", s.len ? ", " : "", aws_options[i].name);
	return s.data;
}

static const AwsOption *
find(const char *name)
{
	for (int i = 0; i < lengthof(aws_options); i++)
		if (strcmp(aws_options[i].name, name) == 0)
			return &aws_options[i];
	return NULL;
}

/*---- values */

static bool
consists_of(const char *value, const char *others)
{
	for (; *value; value++)
		if (!((*value >= 'a' && *value <= 'z') || (*value >= 'A' && *value <= 'Z') ||
			  (*value >= '0' && *value <= '9') || strchr(others, *value)))
			return false;
	return true;
}

/* "arn:aws:iam::123456789012:role/name" */
static bool
is_role(const char *value)
{
	const char *p = value;

	if (strncmp(p, "arn:aws", 7) != 0 || strlen(value) > 2048)
		return false;
	p += 7 + strspn(p + 7, "abcdefghijklmnopqrstuvwxyz-");
	if (strncmp(p, ":iam::", 6) != 0)
		return false;
	p += 6;
	if (strspn(p, "0123456789") != 12 || strncmp(p + 12, ":role/", 6) != 0)
		return false;
	p += 18;
	return *p != '\0' && consists_of(p, "+=,.@_/-");
}

static bool
has_certificates(const char *pem)
{
	BIO		   *bio = BIO_new_mem_buf(pem, -1);
	X509	   *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	bool		found = certificate != NULL;

	X509_free(certificate);
	BIO_free(bio);
	return found;
}

/* What is wrong with a value, as a sentence; NULL: nothing. */
static const char *
wrong(const AwsOption *option, const char *value)
{
	static char why[200];
	KdaEndpoint endpoint;
	bool		graphic = true;

	for (const char *p = value; *p; p++)
		graphic &= *p > ' ' && *p <= '~';
	switch (option->check)
	{
		case C_REGION:
			return kda_region_is_valid(value) ? NULL : "It is the name of a region, as in 'eu-west-1'.";
		case C_ENDPOINT:
			return kda_endpoint_parse(value, KDA_REACH_USER, &endpoint, why, sizeof(why)) ? NULL : why;
		case C_PROXY:
			return kda_endpoint_parse(value, KDA_REACH_PROXY, &endpoint, why, sizeof(why)) ? NULL : why;
		case C_FILE:
			return value[0] == '/' ? NULL : "It is the absolute path of a file of the server.";
		case C_CERTIFICATES:
			return has_certificates(value) ? NULL : "It is certificates in PEM, beginning with -----BEGIN CERTIFICATE-----.";
		case C_KEY_ID:
			return *value && strlen(value) <= 128 && consists_of(value, "_-") ? NULL : "It consists of letters and digits.";
		case C_SECRET:
			return *value && graphic ? NULL : "It must not be empty, or have spaces or line breaks in it.";
		case C_ROLE:
			return is_role(value) ? NULL : "It is the ARN of a role, as in 'arn:aws:iam::123456789012:role/name'.";
		case C_EXTERNAL_ID:
			return strlen(value) >= 2 && strlen(value) <= 1224 && consists_of(value, "_+=,.@:/-") ? NULL :
				"It has 2 to 1224 letters, digits or characters of _+=,.@:/-";
	}
	return NULL;
}

static void
check_option(DefElem *def, bool mapping, const char *type)
{
	const AwsOption *option = find(def->defname);
	const char *why;

	if (option == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\" of a %s of type \"%s\"", def->defname,
						mapping ? "user mapping for a server" : "server", type),
				 errhint("Options: %s.", names(mapping)),
				 errhidestmt(mapping), errhidecontext(mapping)));
	if (option->mapping != mapping)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"%s\" belongs to a %s", option->name, mapping ? "server" : "user mapping"),
				 errhint(mapping ? "ALTER SERVER ... OPTIONS (ADD \"%s\" '...');" :
						 "CREATE USER MAPPING FOR ... SERVER ... OPTIONS (\"%s\" '...');", option->name),
				 errhidestmt(true), errhidecontext(true)));
	if (def->arg == NULL)
		return;					/* ALTER ... DROP */
	if (option->check == C_FILE && !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option->name),
				 errdetail("It names a file of the server; that needs the rights of role pg_read_server_files."),
				 errhint("Option \"ssl.ca.pem\" takes the certificates themselves.")));
	why = wrong(option, defGetString(def));
	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"%s\"", option->name),
				 errdetail("%s", why),
				 errhidestmt(true), errhidecontext(true)));
}

static char *
value_of(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0 && def->arg)
			return defGetString(def);
	}
	return NULL;
}

/*---- servers */

void
kda_aws_server_options(const char *service, List *options, KdaAwsServerOptions *out)
{
	char	   *value;
	char		why[200];
	KdaEndpoint proxy;

	memset(out, 0, sizeof(KdaAwsServerOptions));
	out->region = value_of(options, "region");
	if (out->region == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("a server of type \"%s\" needs option \"region\"", service),
				 errhint("OPTIONS (region 'eu-west-1')")));
	kda_endpoint_of_aws(service, out->region, &out->endpoint);
	kda_endpoint_of_aws("sts", out->region, &out->sts);
	if (((value = value_of(options, "endpoint")) != NULL &&
		 !kda_endpoint_parse(value, KDA_REACH_USER, &out->endpoint, why, sizeof(why))) ||
		((value = value_of(options, "sts_endpoint")) != NULL &&
		 !kda_endpoint_parse(value, KDA_REACH_USER, &out->sts, why, sizeof(why))) ||
		((value = value_of(options, "proxy")) != NULL &&
		 !kda_endpoint_parse(value, KDA_REACH_PROXY, &proxy, why, sizeof(why))))
		elog(ERROR, "an endpoint is invalid: %s", why); /* it was checked */
	if (value)
		out->proxy = psprintf("%s%s", proxy.base, proxy.default_port ? proxy.plain ? ":80" : ":443" : "");
	if (strcmp(service, "kafka") == 0)
		return;					/* certificates are the brokers' */
	out->ca_file = value_of(options, "ssl.ca.location");
	out->ca_pem = value_of(options, "ssl.ca.pem");
	if (out->ca_file && out->ca_pem)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("options \"ssl.ca.location\" and \"ssl.ca.pem\" say the same thing; give one of them")));
}

void
kda_aws_check_server(const ForeignServer *server)
{
	KdaAwsServerOptions options;
	ListCell   *lc;

	foreach(lc, server->options)
		check_option(lfirst_node(DefElem, lc), false, server->servertype);
	kda_aws_server_options(server->servertype, server->options, &options);
}

bool
kda_aws_has_option(const char *name, bool mapping)
{
	const AwsOption *option = find(name);

	return option && option->mapping == mapping &&
		(mapping || option->check == C_REGION || strcmp(name, "sts_endpoint") == 0 || strcmp(name, "proxy") == 0);
}

void
kda_aws_check_option(DefElem *def, const char *type)
{
	check_option(def, false, type);
}

/*---- user mappings */

bool
kda_aws_may_use_machine(Oid owner)
{
	Oid			role;

	if (superuser_arg(owner))
		return true;
	if (kda_machine_credentials_role == NULL || *kda_machine_credentials_role == '\0')
		return false;
	role = get_role_oid(kda_machine_credentials_role, true);
	return OidIsValid(role) && is_member_of_role(owner, role);
}

static void
need(List *all, const char *name, const char *other)
{
	if (value_of(all, name) && !value_of(all, other))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" needs option \"%s\" beside it", name, other),
				 errhint("Give access_key_id and secret_access_key, with temporary keys session_token, too; or role_arn, perhaps with external_id; or both."),
				 errhidestmt(true), errhidecontext(true)));
}

void
kda_aws_check_user_mapping(const ForeignServer *server, List *given, List *all)
{
	ListCell   *lc;

	foreach(lc, given)
		check_option(lfirst_node(DefElem, lc), true, server->servertype);
	need(all, "access_key_id", "secret_access_key");
	need(all, "secret_access_key", "access_key_id");
	need(all, "session_token", "access_key_id");
	need(all, "external_id", "role_arn");
	if (!value_of(all, "access_key_id") && !kda_aws_may_use_machine(server->owner))
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("server \"%s\" cannot use the machine's credentials", server->servername),
				 errdetail("Its owner \"%s\" is neither a superuser nor a member of the role that parameter kda_stream.machine_credentials_role names.",
						   GetUserNameFromId(server->owner, false)),
				 errhint("Give access_key_id and secret_access_key.")));
}
