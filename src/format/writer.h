/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  One value of a column as JSON or as text.  Private to format/.
 *
 * What is written does not depend on the session: times have the zone that is
 * given, and what output functions ask for is pinned (kda_writer_pin).
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WRITER_H
#define KDA_WRITER_H

#include "kda_stream.h"
#include "catalog/options.h"
#include "format/text.h"
#include "pgtime.h"

typedef struct KdaWriter KdaWriter;

/* ereports on a time zone that there is not. */
extern KdaWriter *kda_writer_create(MemoryContext context, Oid type, KdaTimeFormat time_format, const char *time_zone);

/* Does it call functions that look at the session's settings?  Then call it between pin and unpin. */
extern bool kda_writer_calls(const KdaWriter *writer);

/* Append a value that is not NULL: as to_jsonb(value) says it, or as COPY writes it. */
extern void kda_write_json(KdaWriter *writer, Datum value, StringInfo into);
extern void kda_write_text(KdaWriter *writer, Datum value, StringInfo into);

/* The settings of the session that output functions ask for. */
typedef struct KdaPinned
{
	int			date_style;
	int			date_order;
	int			interval_style;
	int			float_digits;
	int			bytea_style;
	pg_tz	   *zone;
} KdaPinned;

/* Sets them as they are by default, but for the zone; unpin puts the old ones back (also after an error). */
extern void kda_writer_pin(KdaPinned *old, pg_tz *zone);
extern void kda_writer_unpin(const KdaPinned *old);

#endif							/* KDA_WRITER_H */
