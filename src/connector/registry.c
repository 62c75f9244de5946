/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  Confluent's REST API of schema registries: see registry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/options.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "common/base64.h"
#include "connector/aws_reply.h"
#include "connector/connector.h"
#include "connector/http.h"
#include "connector/registry.h"
#include "connector/retry.h"
#include "connector/secret.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "utils/acl.h"
#include "utils/memutils.h"

#define MAX_ANSWER	(4 * 1024 * 1024)	/* a schema has at most a quarter of it; inside of JSON each byte may be several */
#define FIRST_MS	200
#define CLOSE_MS	1000
#define MEDIA_TYPE	"application/vnd.schemaregistry.v1+json"

struct KdaRegistry
{
	Oid			serverid;
	char	   *name;
	KdaHttp    *http;
	KdaEndpoint endpoint;
	char	   *path;			/* of the URL, without a slash at its end */
	KdaText		authorization;	/* value of the header; empty: none */
	MemoryContext context;
	MemoryContextCallback callback;
};

struct KdaRegistryQuestion
{
	KdaRegistry *registry;
	bool		registers;
	char	   *path;
	KdaText		body;			/* to be sent; plain */
	KdaHttpRequest *request;
	KdaRetry	retry;
	bool		done;
	KdaText		schema;			/* the answer */
	KdaSchemaId id;
	char		why[300];		/* it is "no" */
	char		trouble[300];
};

/*---- options */

static const char *const server_options[] = {"url", "ssl.ca.location", "ssl.ca.pem", "proxy"};
static const char *const mapping_options[] = {"username", "password", "token"};

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

static void
check_names(List *options, const char *const *known, int n, bool mapping)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		bool		found = false;

		for (int i = 0; i < n; i++)
			found |= strcmp(known[i], def->defname) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\" of a %s of type \"%s\"", def->defname,
							mapping ? "user mapping for a server" : "server", KDA_REGISTRY_TYPE),
					 errhint(mapping ? "Options: username, password; or token." : "Options: url, ssl.ca.location, ssl.ca.pem, proxy."),
					 errhidestmt(mapping), errhidecontext(mapping)));
	}
}

/* "https://host:port/a/path": what may be connected to, and the path without a slash at its end. */
static bool
parse_url(const char *url, KdaEndpoint *endpoint, char **path, char *why, size_t why_size)
{
	const char *authority = strstr(url, "://");
	const char *slash = authority ? strchr(authority + 3, '/') : NULL;
	Size		len;

	if (!kda_endpoint_parse(slash ? pnstrdup(url, slash - url) : url, KDA_REACH_USER, endpoint, why, why_size))
		return false;
	*path = pstrdup(slash ? slash : "");
	len = strlen(*path);
	while (len > 0 && (*path)[len - 1] == '/')
		(*path)[--len] = '\0';
	if (strspn(*path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/") != len || len > 1000)
	{
		strlcpy(why, "Its path is made of letters, digits, -._~ and slashes.", why_size);
		return false;
	}
	return true;
}

void
kda_registry_check_server(const ForeignServer *server)
{
	char	   *url = value_of(server->options, "url");
	char	   *proxy = value_of(server->options, "proxy");
	KdaEndpoint endpoint;
	char	   *path;
	char		why[200];

	check_names(server->options, server_options, lengthof(server_options), false);
	if (url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("a server of type \"%s\" needs option \"url\"", KDA_REGISTRY_TYPE),
				 errhint("OPTIONS (url 'https://registry:8081')")));
	if (!parse_url(url, &endpoint, &path, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"url\""),
				 errdetail("%s", why),
				 errhidestmt(true), errhidecontext(true)));
	if (proxy && !kda_endpoint_parse(proxy, KDA_REACH_PROXY, &endpoint, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for option \"proxy\""),
				 errdetail("%s", why),
				 errhidestmt(true), errhidecontext(true)));
	if (value_of(server->options, "ssl.ca.location") && !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"ssl.ca.location\""),
				 errdetail("It names a file of the server; that needs the rights of role pg_read_server_files."),
				 errhint("Option \"ssl.ca.pem\" takes the certificates themselves.")));
}

void
kda_registry_check_user_mapping(const ForeignServer *server, List *given, List *all)
{
	check_names(given, mapping_options, lengthof(mapping_options), true);
	if ((value_of(all, "token") != NULL) == (value_of(all, "username") != NULL) ||
		(value_of(all, "username") != NULL) != (value_of(all, "password") != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("a user mapping for server \"%s\" needs username and password, or token", server->servername),
				 errhidestmt(true), errhidecontext(true)));
}

/*---- opening */

static void
close_registry(void *arg)
{
	KdaRegistry *r = arg;

	if (r->http)
		kda_http_close(r->http, CLOSE_MS);
	kda_text_free(&r->authorization);
}

/* What proves who we are, in secret memory. */
static void
set_authorization(KdaRegistry *r, List *options)
{
	char	   *token = value_of(options, "token");
	char	   *username = value_of(options, "username");
	char	   *password = value_of(options, "password");

	if (token)
	{
		kda_text_adds(&r->authorization, "Bearer ");
		kda_text_adds(&r->authorization, token);
	}
	else if (username && password)
	{
		KdaText		plain = {0};
		int			room;
		char	   *encoded;
		int			len;

		kda_text_adds(&plain, username);
		kda_text_addc(&plain, ':');
		kda_text_adds(&plain, password);
		room = pg_b64_enc_len((int) plain.len) + 1;
		encoded = kda_secret_calloc(1, room);
		if (encoded && !plain.failed)
		{
#if PG_VERSION_NUM >= 180000
			len = pg_b64_encode((const uint8 *) kda_text_str(&plain), (int) plain.len, encoded, room);
#else
			len = pg_b64_encode(kda_text_str(&plain), (int) plain.len, encoded, room);
#endif
			kda_text_adds(&r->authorization, "Basic ");
			kda_text_add(&r->authorization, encoded, Max(len, 0));
		}
		kda_secret_free(encoded);
		kda_text_free(&plain);
	}
}

static bool
may_use_server(Oid userid, Oid serverid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, serverid, userid, ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_foreign_server_aclcheck(serverid, userid, ACL_USAGE) == ACLCHECK_OK;
#endif
}

static ForeignServer *
find_server(const char *name, Oid userid)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server == NULL || server->servertype == NULL || strcmp(server->servertype, KDA_REGISTRY_TYPE) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is not a server of type \"%s\"", name, KDA_REGISTRY_TYPE),
				 errhint("CREATE SERVER %s TYPE '%s' FOREIGN DATA WRAPPER kda_stream OPTIONS (url 'https://...');", name, KDA_REGISTRY_TYPE)));
	if (!may_use_server(userid, server->serverid))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER, name);
	return server;
}

void
kda_connector_check_registry(const char *name, Oid userid)
{
	(void) find_server(name, userid);
}

KdaRegistry *
kda_registry_open(const char *name, Oid userid, int wake_fd)
{
	KdaRegistry *r = palloc0(sizeof(KdaRegistry));
	ForeignServer *server = find_server(name, userid);
	UserMapping *mapping;
	KdaHttpConfig config = {.wake_fd = wake_fd};
	char		why[200];

	r->serverid = server->serverid;
	r->name = pstrdup(name);
	r->context = CurrentMemoryContext;
	r->callback.func = close_registry;
	r->callback.arg = r;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &r->callback);
	if (!parse_url(value_of(server->options, "url"), &r->endpoint, &r->path, why, sizeof(why)))
		elog(ERROR, "the URL of a registry is invalid: %s", why);	/* it was checked */
	mapping = kda_user_mapping(userid, server->serverid);
	if (mapping)
		set_authorization(r, mapping->options);
	config.ca_file = value_of(server->options, "ssl.ca.location");
	config.ca_pem = value_of(server->options, "ssl.ca.pem");
	config.proxy = value_of(server->options, "proxy");
	r->http = kda_http_open(&config);
	if (r->http == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory, or of threads, for server \"%s\"", name)));
	return r;
}

Oid
kda_registry_server(const KdaRegistry *r)
{
	return r->serverid;
}

/*---- questions */

static void
send_question(KdaRegistryQuestion *q, int64 delay_ms)
{
	KdaRegistry *r = q->registry;

	q->request = kda_http_request(r->http, q->registers ? "POST" : "GET", &r->endpoint, q->path);
	if (q->request == NULL)
	{
		strlcpy(q->trouble, "out of memory", sizeof(q->trouble));
		return;
	}
	q->request->answer.plain = true;
	q->request->answer.limit = MAX_ANSWER;
	q->request->timeout_ms = KDA_HTTP_TIMEOUT_MS;
	kda_http_header(q->request, "Accept", MEDIA_TYPE ", application/json");
	if (r->authorization.len > 0)
		kda_http_header(q->request, "Authorization", r->authorization.data);
	if (q->registers)
	{
		kda_http_header(q->request, "Content-Type", MEDIA_TYPE);
		kda_text_add(&q->request->body, kda_text_str(&q->body), q->body.len);
	}
	kda_http_send(q->request, delay_ms);
}

static KdaRegistryQuestion *
new_question(KdaRegistry *r)
{
	KdaRegistryQuestion *q = MemoryContextAllocZero(r->context, sizeof(KdaRegistryQuestion));

	q->registry = r;
	q->body.plain = q->schema.plain = true;
	kda_retry_init(&q->retry, 0, FIRST_MS, kda_retry_max_interval_ms);
	return q;
}

KdaRegistryQuestion *
kda_registry_ask(KdaRegistry *r, const KdaSchemaId *id)
{
	KdaRegistryQuestion *q = new_question(r);
	MemoryContext old = MemoryContextSwitchTo(r->context);
	char		text[40];

	q->id = *id;
	q->path = psprintf("%s/schemas/ids/%s", r->path, kda_schema_id_text(id, text));
	MemoryContextSwitchTo(old);
	send_question(q, 0);
	return q;
}

/* A JSON string. */
static void
add_json(KdaText *to, const char *s)
{
	kda_text_addc(to, '"');
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			kda_text_addf(to, "\\%c", *s);
		else if ((unsigned char) *s < 0x20)
			kda_text_addf(to, "\\u%04x", *s);
		else
			kda_text_addc(to, *s);
	kda_text_addc(to, '"');
}

KdaRegistryQuestion *
kda_registry_register(KdaRegistry *r, const char *subject, const char *schema)
{
	KdaRegistryQuestion *q = new_question(r);
	MemoryContext old = MemoryContextSwitchTo(r->context);
	StringInfoData path;

	q->registers = true;
	initStringInfo(&path);
	appendStringInfo(&path, "%s/subjects/", r->path);
	for (const char *p = subject; *p; p++)
		if (isalnum((unsigned char) *p) || strchr("-._~", *p))
			appendStringInfoChar(&path, *p);
		else
			appendStringInfo(&path, "%%%02X", (unsigned char) *p);
	appendStringInfoString(&path, "/versions");
	q->path = path.data;
	kda_text_adds(&q->body, "{\"schema\":");
	add_json(&q->body, schema);
	kda_text_addc(&q->body, '}');
	MemoryContextSwitchTo(old);
	send_question(q, 0);
	return q;
}

/* What the registry says of an answer that is no answer; ASCII. */
static void
say(char *to, size_t size, const KdaRegistryQuestion *q, const char *what)
{
	KdaText		message = {.plain = true};

	if (q->request->result != KDA_HTTP_ANSWERED)
		snprintf(to, size, "%s", q->request->error);
	else if (kda_aws_json_field(kda_text_str(&q->request->answer), q->request->answer.len, "message", &message))
		snprintf(to, size, "%s (status %d: %.200s)", what, q->request->status, kda_text_str(&message));
	else
		snprintf(to, size, "%s (status %d)", what, q->request->status);
	for (char *p = to; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	kda_text_free(&message);
}

/* The schema, the number, or a definite no; false: no answer. */
static bool
take_answer(KdaRegistryQuestion *q)
{
	KdaHttpRequest *request = q->request;
	const char *answer = kda_text_str(&request->answer);
	KdaText		text = {.plain = true};
	bool		fine = false;

	if (request->result == KDA_HTTP_TOO_LARGE)
	{
		strlcpy(q->why, "the registry's answer is too large", sizeof(q->why));
		return true;
	}
	if (request->result != KDA_HTTP_ANSWERED)
		return false;
	if (request->status == 200 && !q->registers)
	{
		if (kda_aws_json_field(answer, request->answer.len, "schemaType", &text) && strcmp(kda_text_str(&text), "AVRO") != 0)
			snprintf(q->why, sizeof(q->why), "it is no schema of Avro's but of type %.40s", kda_text_str(&text));
		else
			fine = kda_aws_json_field(answer, request->answer.len, "schema", &q->schema);
	}
	else if (request->status == 200)
	{
		if (kda_aws_json_field(answer, request->answer.len, "id", &text))
		{
			char	   *end;
			int64		id = strtoi64(kda_text_str(&text), &end, 10);

			fine = *end == '\0' && id >= 0 && id <= PG_UINT32_MAX;
			q->id.len = 4;
			for (int i = 0; i < 4; i++)
				q->id.bytes[i] = (uint8) (id >> (24 - 8 * i));
		}
	}
	else if (request->status == 404 && !q->registers)
		say(q->why, sizeof(q->why), q, "the registry does not know it");
	else if ((request->status == 409 || request->status == 422) && q->registers)
		say(q->why, sizeof(q->why), q, "the registry does not take the schema");
	kda_text_free(&text);
	for (char *p = q->why; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return fine || q->why[0] != '\0';
}

bool
kda_registry_done(KdaRegistryQuestion *q)
{
	if (q->done)
		return true;
	if (q->request == NULL)
	{
		send_question(q, kda_retry_after_failure(&q->retry, 0));
		return false;
	}
	if (!kda_http_done(q->request))
		return false;
	if (take_answer(q))
	{
		q->done = true;
		q->trouble[0] = '\0';
	}
	else
		say(q->trouble, sizeof(q->trouble), q, q->request->status == 401 || q->request->status == 403 ?
			"the registry does not accept who we are" : "the registry gave no answer that is understood");
	kda_http_free(q->request);
	q->request = NULL;
	if (!q->done)
		send_question(q, kda_retry_after_failure(&q->retry, 0));
	return q->done;
}

const char *
kda_registry_schema(const KdaRegistryQuestion *q, Size *len, const char **why)
{
	*why = q->why;
	*len = q->schema.len;
	return q->why[0] ? NULL : kda_text_str(&q->schema);
}

bool
kda_registry_id(const KdaRegistryQuestion *q, KdaSchemaId *id, const char **why)
{
	*why = q->why;
	*id = q->id;
	return q->why[0] == '\0';
}

void
kda_registry_forget(KdaRegistryQuestion *q)
{
	kda_http_free(q->request);
	kda_text_free(&q->body);
	kda_text_free(&q->schema);
	pfree(q->path);
	pfree(q);
}

const char *
kda_registry_trouble(const KdaRegistryQuestion *q)
{
	return q->trouble;
}
