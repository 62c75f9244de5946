/*-------------------------------------------------------------------------
 *
 * agg_signature.h
 *	  How a stored view names an aggregate, and which ones we can keep.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AGG_SIGNATURE_H
#define KDA_AGG_SIGNATURE_H

#include "kda_stream.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"

/* "pg_catalog.sum(integer)"; a polymorphic one's actual types follow: "…(anyarray); pg_catalog.int4[]" */
extern char *kda_agg_signature(Aggref *aggref);

typedef struct KdaAggIdentity
{
	Oid			aggfnoid;
	int			nargs;
	Oid			argtypes[FUNC_MAX_ARGS];	/* actual ones */
} KdaAggIdentity;

/* The other way; ereports if there is no such aggregate. */
extern void kda_agg_identify(const char *signature, KdaAggIdentity *identity);

/* Type of its transition state, polymorphic ones resolved. */
extern Oid	kda_agg_transtype(Oid aggfnoid, Oid *argtypes, int nargs);

/* Can its state be stored and read back?  If not, *why says what is missing. */
extern bool kda_agg_supported(Aggref *aggref, char **why);

/* Built in, and its result shows in which order it was given its rows, since it does not put them in one of its own? */
extern bool kda_agg_shows_order(const Aggref *aggref);

/* CRC-32C of the signature: states carry it, so that one cannot be taken for another's. */
extern uint32 kda_agg_signature_crc(const char *signature);

/* Attribute number of the first group key in a table of open groups. */
#define KDA_OPEN_FIRST_KEY	2

/* CREATE TABLE of open groups: slot, keys, states. */
extern char *kda_groups_table_ddl(Query *batch, int nkeys, const char *name);

/* Can a column of that type be a group key? */
extern bool kda_key_supported(Oid type);

/* Result columns that need no final step: the state is the result. */
extern bool kda_agg_state_is_result(Aggref *aggref);

#endif							/* KDA_AGG_SIGNATURE_H */
