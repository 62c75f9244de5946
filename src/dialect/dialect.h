/*-------------------------------------------------------------------------
 *
 * dialect.h
 *	  KDA statements as data.  Text comes in, a KdaStmt goes out; who runs it is
 *	  declare/utility_hook.c.  No catalog access in parsing, so that it also
 *	  works in an aborted transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_DIALECT_H
#define KDA_DIALECT_H

#include "kda_stream.h"
#include "nodes/parsenodes.h"
#include "nodes/params.h"
#include "stream/window.h"
#include "tcop/utility.h"

typedef enum KdaStmtKind
{
	KDA_STMT_UTILITY,			/* core node: ALTER STREAM … OPTIONS, DROP, RENAME, CREATE FOREIGN TABLE, CREATE TABLE */
	KDA_STMT_CREATE_STREAM,		/* core: CreateForeignTableStmt */
	KDA_STMT_CREATE_REFERENCE_TABLE,	/* core: CreateStmt */
	KDA_STMT_CREATE_VIEW,
	KDA_STMT_CREATE_PUMP,
	KDA_STMT_STREAM_STATE,		/* ALTER STREAM | OUTPUT … PAUSE | RESUME | RESET */
	KDA_STMT_QUERY_STATE,		/* ALTER PUMP | CONTINUOUS VIEW … STOP | START | RESTART */
	KDA_STMT_QUERY_SET,			/* ALTER CONTINUOUS VIEW … SET (…) */
	KDA_STMT_DROP,				/* core: DropStmt, drop_kind says of what */
	KDA_STMT_CREATE_OUTPUT,		/* source, server, options */
	KDA_STMT_SELECT				/* SELECT or INSERT with a window clause outside a query */
} KdaStmtKind;

typedef enum KdaObjectKind
{
	KDA_OBJECT_STREAM,
	KDA_OBJECT_VIEW,
	KDA_OBJECT_PUMP,
	KDA_OBJECT_OUTPUT
} KdaObjectKind;

typedef enum KdaAction
{
	KDA_PAUSE,
	KDA_RESUME,
	KDA_RESET,
	KDA_STOP,
	KDA_START,
	KDA_RESTART
} KdaAction;

/*
 * A window clause, however it was spelled.  It belongs to the stream that
 * stands in FROM within [span_start, span_end) of the source text; of several
 * clauses, the one with the smallest span.
 */
typedef struct KdaWindowClause
{
	KdaWindowKind kind;
	List	   *args;			/* raw expressions: size first, then slide, step or offset */
	List	   *partition;		/* raw expressions: PARTITION BY of STAGGER and of TABLE (SESSION (…)) */
	bool		in_from;		/* Flink's TABLE (TUMBLE (…)): the bounds are columns, SELECT * shows them */
	Node	   *time;			/* raw: the column that it calls the time; NULL: it names none */
	Node	   *key;			/* raw: the GROUP BY item that it is, STEP (…), TUMBLE (…); NULL: it is none */
	bool		only_if_time;	/* STEP and FLOOR: of another column than the time it is a key, no window */
	int			location;		/* byte offset in the source text */
	int			span_start;
	int			span_end;
} KdaWindowClause;

/*
 * A window that reaches back from each row, by a time (RANGE) or a number of
 * rows (ROWS), and slides along with them; both ends are included.  There is no
 * ORDER BY: rows are in the order of their time, then of their arrival.
 */
typedef struct KdaRowWindow
{
	bool		rows;			/* ROWS; else RANGE */
	Node	   *reach;			/* raw: number or interval; NULL: no more than the row's own time */
	bool		unbounded;		/* UNBOUNDED PRECEDING */
	bool		following;		/* of a relation: RANGE … FOLLOWING, it reaches ahead */
	bool		bound;			/* of a relation: it has become a condition of the join */
	WindowDef  *def;			/* raw, the whole of it */
	int			relation;		/* FROM a OVER (…): where a, or its parenthesis, stands; -1: of a function */
	int			location;		/* of OVER, or of its definition in WINDOW */
	int			span_start;		/* of its SELECT */
	int			span_end;
} KdaRowWindow;

/* ORDER BY s.ts WITHIN INTERVAL '10' SECOND: sorted as far as records are no later than this. */
typedef struct KdaSortWithin
{
	Node	   *within;			/* raw: interval */
	int			location;		/* of WITHIN; its ORDER BY item stands before it */
	int			span_start;		/* of its SELECT */
	int			span_end;
} KdaSortWithin;

/* JOIN t FOR SYSTEM_TIME AS OF s.rowtime */
typedef struct KdaAsOf
{
	Node	   *time;			/* raw */
	int			relation;		/* where t stands: RangeVar.location */
	int			location;		/* of FOR */
} KdaAsOf;

typedef enum KdaEmit
{
	KDA_EMIT_DEFAULT,
	KDA_EMIT_CHANGES,
	KDA_EMIT_CLOSE,
	KDA_EMIT_EVERY
} KdaEmit;

/* The SELECT of a continuous query with all that is ours lifted out. */
typedef struct KdaQuerySpec
{
	SelectStmt *select;			/* raw; locations are offsets in the source text */
	List	   *windows;		/* KdaWindowClause */
	List	   *row_windows;	/* KdaRowWindow */
	List	   *sorts;			/* KdaSortWithin */
	List	   *as_of;			/* KdaAsOf */
	FuncCall   *time;			/* of a part: the call of sort_within.h whose expression is the time of its rows; NULL: the record's */
	List	   *calls;			/* int: places of STEP (… BY …), FLOOR (… TO …), CEIL (… TO …) */
	int			outer_location; /* of a part: where the SELECT around it begins; -1: there is none */
	KdaEmit		emit;
	Node	   *emit_interval;	/* raw; EMIT EVERY */
	int			emit_location;
} KdaQuerySpec;

typedef struct KdaStmt
{
	KdaStmtKind kind;
	KdaObjectKind object;
	KdaAction	action;
	const char *text;			/* the statement alone; all locations count from its start */
	bool		or_replace;
	bool		if_not_exists;
	bool		if_exists;
	bool		stopped;		/* CREATE PUMP … STOPPED */
	RangeVar   *name;
	List	   *columns;		/* names (String) of CREATE CONTINUOUS VIEW v (…) */
	List	   *options;		/* DefElem: WITH (…), SET (…), OPTIONS (…) of CREATE OUTPUT */
	RangeVar   *source;			/* CREATE OUTPUT … FROM */
	char	   *server;			/* … SERVER */
	char	   *description;	/* DESCRIPTION '…', NULL: none */
	Node	   *core;			/* core's own statement, see kind */
	KdaQuerySpec *query;
	/* pumps */
	InsertStmt *insert;			/* raw, with an empty SELECT */
	char	   *on_conflict;	/* text of that clause, NULL: none */
	Oid			part_target;	/* a pump that is part of a query: the stream that it writes */
	char	   *from;			/* START FROM '…' */
} KdaStmt;

/*
 * FROM a OVER (RANGE …) AS x JOIN b: with b, a stream without a window, as with
 * those that have one, the window becomes a condition on their times.  Once the
 * catalog may be asked; is_stream: does the item of FROM read a stream?
 */
extern void kda_bind_row_windows(KdaQuerySpec *spec, SelectStmt *select, bool (*is_stream) (Node *item));

extern const char *kda_window_kind_name(KdaWindowKind kind);

/*
 * Parses one KDA statement, which text begins with and which alone is in it.
 * ereports with a position in text; see KdaPlace.
 */
extern KdaStmt *kda_parse_statement(const char *text);

/*
 * Between begin and end error positions count from byte start of source, not
 * from the statement's own first character.  An error leaves as it is.
 */
typedef struct KdaPlace
{
	ErrorContextCallback callback;
	const char *source;
	int			start;
} KdaPlace;

extern void kda_place_begin(KdaPlace *place, const char *source, int start);
extern void kda_place_end(KdaPlace *place);

/*---- scan.c */
typedef struct KdaScriptPart
{
	int			start;
	int			len;			/* without the semicolon */
	bool		is_kda;			/* a statement of ours */
	bool		is_windowed;	/* core's, with a window clause in it */
	bool		is_query;		/* kda.query's: all spellings are ours */
	struct KdaTokens *tokens;	/* adhoc.c: its tokens, and what was lifted out of it */
	KdaQuerySpec *query;
} KdaScriptPart;

/* Splits a script at top-level semicolons; List of KdaScriptPart *. */
extern List *kda_split_script(const char *source);

/* Might there be a KDA word in it at all?  Costs a few nanoseconds. */
extern bool kda_text_is_suspicious(const char *source);

/*---- door.c: the detour of core's raw_parser */
extern void kda_dialect_init(void);

/*---- rawparse.c */

/* Core's raw_parser, extended by our statements and window clauses. */
extern List *kda_raw_parse(const char *source, int mode);
/* The same of kda.query's text, in which every spelling is ours. */
extern List *kda_raw_parse_query(const char *source);
/* Core's own, past the detour. */
extern List *(*kda_core_raw_parser) (const char *source, int mode);

/*
 * Is this the node that stands for a KDA statement?  Then gives its text and
 * where in the whole source it began; called from the ProcessUtility hook.
 */
extern bool kda_is_marked(Node *stmt, char **text, int *start);

#endif							/* KDA_DIALECT_H */
