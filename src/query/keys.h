/*-------------------------------------------------------------------------
 *
 * keys.h
 *	  Values that tell groups, sessions and rows apart: hashed and compared as
 *	  their types do it, common ones without a function call.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KEYS_H
#define KDA_KEYS_H

#include "kda_stream.h"
#include "fmgr.h"
#include "nodes/nodes.h"

typedef enum KdaKeyKind
{
	KDA_KEY_BITS,				/* by value, equal if the bits are */
	KDA_KEY_BYTES,				/* varlena, equal if the bytes are */
	KDA_KEY_FUNCTION			/* ask the type */
} KdaKeyKind;

typedef struct KdaKeySpec
{
	KdaKeyKind	kind;
	Oid			type;
	bool		byval;
	int16		len;
	Oid			collation;
	FunctionCallInfo eq;
	FunctionCallInfo hash;		/* extended: 64 bits */
} KdaKeySpec;

/* Of a value's bits, so that the low ones depend on all: murmurhash3's finalizer, which core has as murmurhash64() in some versions. */
static inline uint64
kda_mix(uint64 x)
{
	x ^= x >> 33;
	x *= UINT64CONST(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64CONST(0xc4ceb9fe1a85ec53);
	x ^= x >> 33;
	return x;
}

/* expr: whose values are the key. */
extern void kda_key_make(MemoryContext context, KdaKeySpec *key, Node *expr);
extern uint64 kda_keys_hash(KdaKeySpec *keys, int n, const Datum *values, const bool *nulls);

/* Neither is NULL. */
static inline bool
kda_key_equal(KdaKeySpec *key, Datum a, Datum b)
{
	if (key->kind == KDA_KEY_BITS)
		return a == b;
	if (key->kind == KDA_KEY_BYTES)
	{
		struct varlena *va = (struct varlena *) DatumGetPointer(a);
		struct varlena *vb = (struct varlena *) DatumGetPointer(b);
		Size		len = VARSIZE_ANY_EXHDR(va);

		return len == VARSIZE_ANY_EXHDR(vb) && memcmp(VARDATA_ANY(va), VARDATA_ANY(vb), len) == 0;
	}
	key->eq->args[0].value = a;
	key->eq->args[1].value = b;
	key->eq->args[0].isnull = key->eq->args[1].isnull = false;
	key->eq->isnull = false;
	return DatumGetBool(FunctionCallInvoke(key->eq));
}

/* A value in memory of our own: neither compressed nor out of line, where its table might go away. */
extern Datum kda_copy_value(Datum d, bool byval, int16 len);

/* A function that is called often, of so many arguments; both may be NULL: what it finds as its context, and its expression. */
extern FunctionCallInfo kda_make_call(MemoryContext context, Oid function, int nargs, Oid collation, Node *call_context, Node *expr);

#endif							/* KDA_KEYS_H */
