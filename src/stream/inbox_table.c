/*-------------------------------------------------------------------------
 *
 * inbox_table.c
 *	  The tables of an inbox: their columns follow those of the stream, also
 *	  when these change, and in a restored copy, where they are numbered anew.
 *
 * Called by DDL, by a restore's adoption, and by whoever opens a segment.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "catalog/rows.h"
#include "executor/spi.h"
#include "stream/inbox.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/*
 * A domain's checks were made when the row came in; here they would run as the
 * extension's owner.
 */
static Oid
stored_type(Form_pg_attribute att, int32 *typmod)
{
	*typmod = att->atttypmod;
	return getBaseTypeAndTypmod(att->atttypid, typmod);
}

static char *
column_type(Form_pg_attribute att)
{
	int32		typmod;
	Oid			type = stored_type(att, &typmod);

	return kda_column_type_sql(type, typmod, att->attcollation);
}

char *
kda_inbox_ddl(Oid stream_relid, const char *name, bool durable)
{
	Relation	stream = table_open(stream_relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "CREATE %sTABLE %s (kda_xid pg_catalog.xid8 NOT NULL, kda_seq bigint NOT NULL, "
					 "kda_arrival pg_catalog.timestamptz NOT NULL, kda_shard_wm pg_catalog.timestamptz, "
					 "kda_derived boolean NOT NULL, kda_control \"char\", kda_shard varchar(128), kda_position bigint, kda_mark varchar(192)",
					 durable ? "" : "UNLOGGED ", name);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped)
			appendStringInfo(&s, ", c%d %s", i + 1, column_type(att));
	}
	appendStringInfo(&s, "); CREATE INDEX ON %s (kda_xid, kda_seq)", name);
	table_close(stream, NoLock);
	return s.data;
}

char *
kda_inbox_sync_ddl(Oid stream_relid, Oid inbox)
{
	Relation	stream = table_open(stream_relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	StringInfoData s;
	const char *separator = "";

	initStringInfo(&s);
	appendStringInfo(&s, "ALTER TABLE " KDA_STORAGE_SCHEMA ".%s ", quote_identifier(get_rel_name(inbox)));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		char	   *name = psprintf("c%d", i + 1);
		AttrNumber	attno = get_attnum(inbox, name);
		Oid			type,
					collation,
					wanted;
		int32		typmod,
					wanted_typmod;

		if (att->attisdropped)
			continue;
		if (attno == InvalidAttrNumber)
		{
			appendStringInfo(&s, "%sADD COLUMN %s %s", separator, name, column_type(att));
			separator = ", ";
			continue;
		}
		get_atttypetypmodcoll(inbox, attno, &type, &typmod, &collation);
		wanted = stored_type(att, &wanted_typmod);
		if (type != wanted || typmod != wanted_typmod || collation != att->attcollation)
		{
			/* rows are cast as the extension's owner: by core's functions only */
			if (type != wanted && (type >= FirstNormalObjectId || wanted >= FirstNormalObjectId))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("column \"%s\" of stream \"%s\" cannot be changed from type %s to type %s",
								NameStr(att->attname), RelationGetRelationName(stream), format_type_be(type),
								format_type_be(wanted)),
						 errhint("Add a column of the new type.")));
			appendStringInfo(&s, "%sALTER COLUMN %s TYPE %s USING %s::%s", separator, name,
							 column_type(att), name,
							 format_type_extended(wanted, wanted_typmod,
												  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
			separator = ", ";
		}
	}
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attisdropped && get_attnum(inbox, psprintf("c%d", i + 1)) != InvalidAttrNumber)
		{
			appendStringInfo(&s, "%sDROP COLUMN c%d", separator, i + 1);
			separator = ", ";
		}
	table_close(stream, NoLock);
	return separator[0] ? s.data : NULL;
}

/* The attribute numbers of a segment's columns of the stream, in the order of their names' numbers; returns how many. */
static int
stream_columns(TupleDesc inbox, AttrNumber *attnos)
{
	int		   *numbers = palloc(sizeof(int) * Max(inbox->natts, 1));
	int			n = 0;

	for (int i = KDA_INBOX_NCOLS; i < inbox->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(inbox, i);
		int			number,
					at;

		if (att->attisdropped)
			continue;
		number = atoi(NameStr(att->attname) + 1);
		for (at = n++; at > 0 && numbers[at - 1] > number; at--)
		{
			numbers[at] = numbers[at - 1];
			attnos[at] = attnos[at - 1];
		}
		numbers[at] = number;
		attnos[at] = i + 1;
	}
	pfree(numbers);
	return n;
}

/*
 * By their order, not by their names: in a restored stream the columns are
 * numbered anew, without those that had been dropped.
 */
AttrNumber *
kda_inbox_map(TupleDesc stream, Relation inbox)
{
	AttrNumber *map = palloc0(sizeof(AttrNumber) * Max(stream->natts, 1));
	AttrNumber *attnos = palloc(sizeof(AttrNumber) * Max(RelationGetDescr(inbox)->natts, 1));
	int			n = stream_columns(RelationGetDescr(inbox), attnos);
	int			next = 0;

	for (int i = 0; i < stream->natts && next < n; i++)
		if (!TupleDescAttr(stream, i)->attisdropped)
			map[i] = attnos[next++];
	pfree(attnos);
	return map;
}

void
kda_inbox_rename_columns(Oid stream_relid, Oid segment)
{
	Relation	stream = table_open(stream_relid, AccessShareLock);
	Relation	inbox = table_open(segment, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	AttrNumber *map = kda_inbox_map(desc, inbox);

	/* a number never grows, so that no name is taken when its turn comes */
	for (int i = 0; i < desc->natts; i++)
	{
		const char *had;

		if (map[i] <= 0)
			continue;
		had = NameStr(TupleDescAttr(RelationGetDescr(inbox), map[i] - 1)->attname);
		if (atoi(had + 1) != i + 1)
			SPI_execute(psprintf("ALTER TABLE " KDA_STORAGE_SCHEMA ".%s RENAME COLUMN %s TO c%d",
								 quote_identifier(RelationGetRelationName(inbox)), had, i + 1), false, 0);
	}
	table_close(inbox, NoLock);
	table_close(stream, NoLock);
}
