/*-------------------------------------------------------------------------
 *
 * agg_signature.c
 *	  Aggregates by name: what stored views and states know of them is text,
 *	  so that a dump can be restored.
 *
 * Called in sessions (CREATE) and wherever kda.final runs.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/rows.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_agg.h"
#include "parser/parse_type.h"
#include "port/pg_crc32c.h"
#include "query/agg_signature.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

static char *
qualified_type(Oid type)
{
	return format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY);
}

char *
kda_agg_signature(Aggref *aggref)
{
	StringInfoData s;
	Oid		   *declared;
	int			nargs;
	bool		polymorphic = false;
	ListCell   *lc;

	initStringInfo(&s);
	appendStringInfoString(&s, format_procedure_qualified(aggref->aggfnoid));
	(void) get_func_signature(aggref->aggfnoid, &declared, &nargs);
	for (int i = 0; i < nargs; i++)
		polymorphic |= IsPolymorphicType(declared[i]) || declared[i] == ANYOID;
	if (!polymorphic)
		return s.data;
	foreach(lc, aggref->aggargtypes)
		appendStringInfo(&s, "%s%s", lc == list_head(aggref->aggargtypes) ? "; " : ", ",
						 qualified_type(lfirst_oid(lc)));
	return s.data;
}

uint32
kda_agg_signature_crc(const char *signature)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, signature, strlen(signature));
	FIN_CRC32C(crc);
	return crc;
}

void
kda_agg_identify(const char *signature, KdaAggIdentity *identity)
{
	char	   *text = pstrdup(signature);
	char	   *types = strstr(text, "; ");

	memset(identity, 0, sizeof(*identity));
	if (types)
	{
		*types = '\0';
		types += 2;
	}
	identity->aggfnoid = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(text)));
	if (get_func_prokind(identity->aggfnoid) != PROKIND_AGGREGATE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not an aggregate", text)));
	if (types == NULL)
	{
		Oid		   *declared;

		(void) get_func_signature(identity->aggfnoid, &declared, &identity->nargs);
		memcpy(identity->argtypes, declared, sizeof(Oid) * identity->nargs);
		return;
	}
	/* commas inside a type name only stand in parentheses or quotes */
	while (*types && identity->nargs < FUNC_MAX_ARGS)
	{
		char	   *p = types;
		int			depth = 0;
		bool		quoted = false;
		int32		typmod;
		Oid			type;

		for (; *p && (depth > 0 || quoted || *p != ','); p++)
		{
			if (*p == '"')
				quoted = !quoted;
			else if (!quoted)
				depth += (*p == '(') - (*p == ')');
		}
		if (*p)
			*p++ = '\0';
		while (*p == ' ')
			p++;
		kda_parse_type(types, &type, &typmod);
		identity->argtypes[identity->nargs++] = type;
		types = p;
	}
}

Oid
kda_agg_transtype(Oid aggfnoid, Oid *argtypes, int nargs)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggfnoid));
	Oid			transtype;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggfnoid);
	transtype = ((Form_pg_aggregate) GETSTRUCT(tuple))->aggtranstype;
	ReleaseSysCache(tuple);
	return resolve_aggregate_transtype(aggfnoid, transtype, argtypes, nargs);
}

bool
kda_agg_supported(Aggref *aggref, char **why)
{
	HeapTuple	tuple;
	Form_pg_aggregate form;
	bool		ok = true;

	*why = NULL;
	if (aggref->aggkind != AGGKIND_NORMAL)
	{
		*why = "It is an ordered-set aggregate.";
		return false;
	}
	if (aggref->aggdistinct || aggref->aggorder)
	{
		*why = "It has DISTINCT or ORDER BY.";
		return false;
	}
	if (aggref->agglevelsup > 0)
	{
		*why = "It belongs to an outer query.";
		return false;
	}
	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	if (!OidIsValid(form->aggcombinefn))
	{
		*why = "It has no combine function.";
		ok = false;
	}
	else if (form->aggtranstype == INTERNALOID &&
			 (!OidIsValid(form->aggserialfn) || !OidIsValid(form->aggdeserialfn)))
	{
		*why = "Its state is internal and it has no serialize functions.";
		ok = false;
	}
	ReleaseSysCache(tuple);
	return ok;
}

bool
kda_agg_shows_order(const Aggref *aggref)
{
	if (aggref->aggorder)
		return false;
	switch (aggref->aggfnoid)
	{
		case F_ARRAY_AGG_ANYNONARRAY:
		case F_ARRAY_AGG_ANYARRAY:
		case F_STRING_AGG_TEXT_TEXT:
		case F_STRING_AGG_BYTEA_BYTEA:
		case F_JSON_AGG:
		case F_JSONB_AGG:
		case F_JSON_OBJECT_AGG:
		case F_JSONB_OBJECT_AGG:
		case F_XMLAGG:
#if PG_VERSION_NUM >= 160000
		case F_JSON_AGG_STRICT:
		case F_JSON_OBJECT_AGG_STRICT:
		case F_JSON_OBJECT_AGG_UNIQUE:
		case F_JSON_OBJECT_AGG_UNIQUE_STRICT:
		case F_JSONB_AGG_STRICT:
		case F_JSONB_OBJECT_AGG_STRICT:
		case F_JSONB_OBJECT_AGG_UNIQUE:
		case F_JSONB_OBJECT_AGG_UNIQUE_STRICT:
#endif
			return true;
	}
	return false;
}

bool
kda_agg_state_is_result(Aggref *aggref)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	Oid			argtypes[FUNC_MAX_ARGS];
	int			nargs = get_aggregate_argtypes(aggref, argtypes);
	bool		plain;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	plain = !OidIsValid(((Form_pg_aggregate) GETSTRUCT(tuple))->aggfinalfn);
	ReleaseSysCache(tuple);
	return plain && kda_agg_transtype(aggref->aggfnoid, argtypes, nargs) == aggref->aggtype;
}

bool
kda_key_supported(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_HASH_PROC);

	return OidIsValid(entry->eq_opr) && OidIsValid(entry->hash_proc);
}

char *
kda_groups_table_ddl(Query *batch, int nkeys, const char *name)
{
	StringInfoData s;
	ListCell   *lc;
	int			i = 0;

	initStringInfo(&s);
	appendStringInfo(&s, "CREATE TABLE %s (kda_slot smallint NOT NULL DEFAULT 0", name);
	foreach(lc, batch->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node	   *expr = (Node *) tle->expr;

		if (i++ < nkeys)
		{
			appendStringInfo(&s, ", %s %s", quote_identifier(tle->resname),
							 kda_column_type_sql(exprType(expr), exprTypmod(expr), exprCollation(expr)));
		}
		else
		{
			Aggref	   *agg = castNode(Aggref, expr);
			Oid			argtypes[FUNC_MAX_ARGS];
			int			nargs = get_aggregate_argtypes(agg, argtypes);
			Oid			transtype = kda_agg_transtype(agg->aggfnoid, argtypes, nargs);

			appendStringInfo(&s, ", %s %s", quote_identifier(tle->resname),
							 transtype == INTERNALOID ? KDA_SCHEMA ".state" :
							 kda_column_type_sql(transtype, -1,
												 OidIsValid(get_typcollation(transtype)) ? agg->inputcollid :
												 InvalidOid));
		}
	}
	appendStringInfoString(&s, ") WITH (fillfactor = 50)");
	return s.data;
}
