/*-------------------------------------------------------------------------
 *
 * emission.h
 *	  When the rows of a continuous query leave, and how often: EMIT and option
 *	  allowed_lateness, as its CREATE decides it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_EMISSION_H
#define KDA_EMISSION_H

#include "declare/split.h"
#include "dialect/dialect.h"

typedef struct KdaEmission
{
	const char *mode;			/* kda_storage.query.emit */
	int64		every_us;		/* EMIT EVERY, 0: none */
	bool		shown;			/* windows or groups may be emitted more than once: what was is kept */
	char	   *keys;			/* "1 3": columns that tell the rows of a window apart; NULL: only all of them do */
	char	   *revisions;		/* columns that are window_revision; NULL: none */
} KdaEmission;

/* Refuses what cannot be emitted as it is asked for.  part: of another query, to which it gives final rows only. */
extern void kda_emission_decide(KdaStmt *stmt, KdaSplit *split, const char *source_text, bool part,
								KdaEmission *emission);

/* Options of the stream have changed: refuses allowed_lateness that its queries do not provide for.  former_us: what it was. */
extern void kda_emission_check_stream(Oid stream, int64 former_us);

#endif							/* KDA_EMISSION_H */
