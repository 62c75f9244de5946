/*-------------------------------------------------------------------------
 *
 * keys.c
 *	  Values that tell groups, sessions and rows apart: see keys.h.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/detoast.h"
#include "common/hashfn.h"
#include "nodes/nodeFuncs.h"
#include "query/keys.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

FunctionCallInfo
kda_make_call(MemoryContext context, Oid function, int nargs, Oid collation, Node *call_context, Node *expr)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	FmgrInfo   *flinfo = palloc0(sizeof(FmgrInfo));
	FunctionCallInfo fcinfo = palloc0(SizeForFunctionCallInfo(nargs));

	fmgr_info_cxt(function, flinfo, context);
	if (expr)
		fmgr_info_set_expr(expr, flinfo);
	InitFunctionCallInfoData(*fcinfo, flinfo, nargs, collation, call_context, NULL);
	MemoryContextSwitchTo(old);
	return fcinfo;
}

uint64
kda_keys_hash(KdaKeySpec *keys, int n, const Datum *values, const bool *nulls)
{
	uint64		h = 0;

	for (int i = 0; i < n; i++)
	{
		KdaKeySpec *key = &keys[i];
		uint64		k;

		if (nulls[i])
			k = 0x9e3779b9;
		else if (key->kind == KDA_KEY_BITS)
			k = kda_mix((uint64) values[i] + i);
		else if (key->kind == KDA_KEY_BYTES)
		{
			struct varlena *v = (struct varlena *) DatumGetPointer(values[i]);

			k = hash_bytes_extended((unsigned char *) VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v), 0);
		}
		else if (key->hash == NULL)
			k = 0;				/* the type has none; equality alone has to do */
		else
		{
			key->hash->args[0].value = values[i];
			key->hash->args[0].isnull = false;
			key->hash->isnull = false;
			k = DatumGetUInt64(FunctionCallInvoke(key->hash));
		}
		h = kda_mix((h << 7 | h >> 57) ^ k);
	}
	return h;
}

void
kda_key_make(MemoryContext context, KdaKeySpec *key, Node *expr)
{
	TypeCacheEntry *entry;

	key->type = exprType(expr);
	key->collation = exprCollation(expr);
	get_typlenbyval(key->type, &key->len, &key->byval);
	entry = lookup_type_cache(key->type, TYPECACHE_EQ_OPR_FINFO | TYPECACHE_HASH_PROC |
							  TYPECACHE_HASH_EXTENDED_PROC_FINFO);
	if (!OidIsValid(entry->eq_opr_finfo.fn_oid))
		elog(ERROR, "type %s has no equality", format_type_be(key->type));
	switch (entry->eq_opr_finfo.fn_oid)
	{
		case F_BOOLEQ:
		case F_CHAREQ:
		case F_INT2EQ:
		case F_INT4EQ:
		case F_INT8EQ:
		case F_OIDEQ:
		case F_DATE_EQ:
		case F_TIME_EQ:
		case F_TIMESTAMP_EQ:
		case F_TIMESTAMPTZ_EQ:
		case F_ENUM_EQ:
			key->kind = KDA_KEY_BITS;
			return;
		case F_TEXTEQ:
		case F_BYTEAEQ:
			if (!OidIsValid(key->collation) || get_collation_isdeterministic(key->collation))
			{
				key->kind = KDA_KEY_BYTES;
				return;
			}
			break;
	}
	key->kind = KDA_KEY_FUNCTION;
	key->eq = kda_make_call(context, entry->eq_opr_finfo.fn_oid, 2, key->collation, NULL, NULL);
	if (OidIsValid(entry->hash_extended_proc_finfo.fn_oid))
	{
		key->hash = kda_make_call(context, entry->hash_extended_proc_finfo.fn_oid, 2, key->collation, NULL, NULL);
		key->hash->args[1].value = Int64GetDatum(0);
	}
	else if (OidIsValid(entry->hash_proc))
		key->hash = kda_make_call(context, entry->hash_proc, 1, key->collation, NULL, NULL);
}

/* A value in memory of our own: neither compressed nor out of line, where its table might go away. */
Datum
kda_copy_value(Datum d, bool byval, int16 len)
{
	if (!byval && len == -1 &&
		(VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(d)) || VARATT_IS_EXTERNAL_INDIRECT(DatumGetPointer(d)) ||
		 VARATT_IS_COMPRESSED(DatumGetPointer(d))))
		return PointerGetDatum(detoast_attr((struct varlena *) DatumGetPointer(d)));
	return datumCopy(d, byval, len);
}
