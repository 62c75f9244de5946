/*-------------------------------------------------------------------------
 *
 * aws_access.c
 *	  Opens AWS's services for a server and a user.
 *
 * The mapping is read past the caches of the catalog, from the page into secret
 * memory: a cached copy would stay in memory of this process that core dumps
 * have.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "connector/aws_access.h"
#include "connector/aws_options.h"
#include "connector/secret.h"
#include "connector/sigv4.h"
#include "foreign/foreign.h"
#include "nodes/nodes.h"
#include "runtime/runtime.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define SESSION_NAME	"kda_stream"
#define CLOSE_MS		1000

typedef struct Mapping
{
	bool		found;
	KdaText		all;			/* every option, for the hash */
	KdaText		access_key_id;
	KdaText		secret_access_key;
	KdaText		session_token;
	KdaText		role_arn;
	KdaText		external_id;
} Mapping;

/* Whoever holds an access: goes with a memory context. */
typedef struct Holder
{
	MemoryContextCallback callback;
	KdaAwsAccess *access;
} Holder;

static KdaAwsAccess *open_ones = NULL;

/*---- the mapping */

static void
take_option(Mapping *m, const char *option, size_t len)
{
	struct
	{
		const char *name;
		KdaText    *to;
	}			known[] = {
		{"access_key_id", &m->access_key_id},
		{"secret_access_key", &m->secret_access_key},
		{"session_token", &m->session_token},
		{"role_arn", &m->role_arn},
		{"external_id", &m->external_id},
	};

	kda_text_add(&m->all, option, len);
	kda_text_addc(&m->all, '\0');
	for (int i = 0; i < lengthof(known); i++)
	{
		size_t		name_len = strlen(known[i].name);

		if (len > name_len && strncmp(option, known[i].name, name_len) == 0 && option[name_len] == '=')
			kda_text_add(known[i].to, option + name_len + 1, len - name_len - 1);
	}
}

/* Zeroes and frees a copy that detoasting has made. */
static void
wipe_copy(struct varlena *copy, const struct varlena *original)
{
	if (copy == original)
		return;
	explicit_bzero(copy, VARSIZE_ANY(copy));
	pfree(copy);
}

/* Exactly this user's; InvalidOid: that of PUBLIC. */
static void
read_mapping(Oid serverid, Oid userid, Mapping *m)
{
	Relation	rel = table_open(UserMappingRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_user_mapping_umuser, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(userid));
	ScanKeyInit(&keys[1], Anum_pg_user_mapping_umserver, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(serverid));
	scan = systable_beginscan(rel, UserMappingUserServerIndexId, true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_user_mapping_umoptions, RelationGetDescr(rel), &isnull);

		m->found = true;
		if (!isnull)
		{
			struct varlena *stored = (struct varlena *) DatumGetPointer(value);
			struct varlena *fetched = VARATT_IS_EXTERNAL(stored) ? detoast_external_attr(stored) : stored;
			struct varlena *array = pg_detoast_datum(fetched);
			Datum	   *options;
			int			n;

			deconstruct_array((ArrayType *) array, TEXTOID, -1, false, TYPALIGN_INT, &options, NULL, &n);
			for (int i = 0; i < n; i++)
				take_option(m, VARDATA_ANY(DatumGetPointer(options[i])), VARSIZE_ANY_EXHDR(DatumGetPointer(options[i])));
			wipe_copy(array, fetched);
			wipe_copy(fetched, stored);
			pfree(options);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
free_mapping(Mapping *m)
{
	kda_text_free(&m->all);
	kda_text_free(&m->access_key_id);
	kda_text_free(&m->secret_access_key);
	kda_text_free(&m->session_token);
	kda_text_free(&m->role_arn);
	kda_text_free(&m->external_id);
}

/*---- opening and closing */

static void
close_access(KdaAwsAccess *a)
{
	kda_credentials_free(a->credentials);
	if (a->http)
		kda_http_close(a->http, CLOSE_MS);
	kda_secret_free(a);
}

/* The context of a holder goes. */
static void
let_go(void *arg)
{
	KdaAwsAccess *a = ((Holder *) arg)->access;

	if (a == NULL || --a->users > 0)
		return;
	for (KdaAwsAccess **p = &open_ones; *p; p = &(*p)->next)
		if (*p == a)
		{
			*p = a->next;
			break;
		}
	close_access(a);
}

static KdaCredentials *
make_credentials(KdaAwsAccess *a, const Mapping *m)
{
	KdaCredentials *c;

	if (m->access_key_id.len > 0)
	{
		KdaAwsKeys	keys = {m->access_key_id.data, kda_text_str(&m->secret_access_key), m->session_token.data};

		c = kda_credentials_fixed(&keys);
	}
	else
		c = kda_credentials_machine(a->http, a->region, kda_retry_max_interval_ms);
	if (c && m->role_arn.len > 0)
	{
		KdaRole		role = {m->role_arn.data, m->external_id.data, SESSION_NAME};

		c = kda_credentials_role(a->http, c, &role, &a->sts, a->region, kda_retry_max_interval_ms);
	}
	return c;
}

/* NULL: no memory or thread. */
static KdaAwsAccess *
open_access(const KdaAwsServerOptions *options, const Mapping *m, int wake_fd)
{
	KdaAwsAccess *a = kda_secret_calloc(1, sizeof(KdaAwsAccess));
	KdaHttpConfig config = {
		.ca_file = options->ca_file,
		.ca_pem = options->ca_pem,
		.proxy = options->proxy,
		.wake_fd = wake_fd,
	};

	if (a == NULL)
		return NULL;
	strlcpy(a->region, options->region, sizeof(a->region));
	a->endpoint = options->endpoint;
	a->sts = options->sts;
	a->wake_fd = wake_fd;
	a->http = kda_http_open(&config);
	if (a->http)
		a->credentials = make_credentials(a, m);
	if (a->credentials == NULL)
	{
		close_access(a);
		return NULL;
	}
	return a;
}

/* Finds one that is open with the same options, or opens one. */
static KdaAwsAccess *
find_or_open(ForeignServer *server, Oid userid, const Mapping *m, int wake_fd)
{
	KdaAwsServerOptions options;
	KdaText		all = {0};
	char		hash[65];
	char	   *shown = nodeToString(server->options);
	KdaAwsAccess *a;

	kda_aws_server_options(server->servertype, server->options, &options);
	kda_text_adds(&all, shown);
	kda_text_addf(&all, "%d", kda_retry_max_interval_ms);
	kda_text_add(&all, kda_text_str(&m->all), m->all.len);
	if (all.failed || !kda_sha256_hex(kda_text_str(&all), all.len, hash))
	{
		kda_text_free(&all);
		return NULL;
	}
	kda_text_free(&all);
	for (a = open_ones; a; a = a->next)
		if (a->serverid == server->serverid && a->userid == userid && a->wake_fd == wake_fd && strcmp(a->options_hash, hash) == 0)
			return a;
	a = open_access(&options, m, wake_fd);
	if (a == NULL)
		return NULL;
	a->serverid = server->serverid;
	a->userid = userid;
	strlcpy(a->options_hash, hash, sizeof(a->options_hash));
	a->next = open_ones;
	open_ones = a;
	return a;
}

KdaAwsAccess *
kda_aws_access(Oid serverid, Oid userid, int wake_fd)
{
	ForeignServer *server = GetForeignServer(serverid);
	Holder	   *holder = palloc0(sizeof(Holder));
	Mapping		m = {0};

	PG_TRY();
	{
		read_mapping(serverid, userid, &m);
		if (!m.found)
			read_mapping(serverid, InvalidOid, &m);
		if (m.access_key_id.len == 0 && !kda_aws_may_use_machine(server->owner))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("server \"%s\" cannot use the machine's credentials", server->servername),
					 errdetail("Its owner is neither a superuser nor a member of the role that parameter kda_stream.machine_credentials_role names."),
					 errhint("Give access_key_id and secret_access_key in a user mapping.")));
		holder->access = find_or_open(server, userid, &m, wake_fd);
	}
	PG_FINALLY();
	{
		free_mapping(&m);
		kda_secret_clean_stack();
	}
	PG_END_TRY();
	if (holder->access == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory, or of threads, for server \"%s\"", server->servername)));
	holder->access->users++;
	holder->callback.func = let_go;
	holder->callback.arg = holder;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &holder->callback);
	return holder->access;
}
