/*-------------------------------------------------------------------------
 *
 * window_clause.c
 *	  What a window clause says: its arguments as constants, checked against
 *	  each other.  In the session that declares the query; of literals the
 *	  catalog is not asked.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_type.h"
#include "declare/window_clause.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_expr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define MAX_WINDOWS	10000		/* that a record may be in */

typedef struct Clause
{
	ParseState *pstate;
	const KdaWindowClause *raw;
	const char *time_zone;
} Clause;

/* An argument. */
typedef struct Length
{
	const char *what;
	Interval   *iv;
	int			location;
} Length;

static char *
interval_text(const Interval *iv)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, PointerGetDatum(iv)));
}

/* The type modifier of INTERVAL '…' SECOND (3); false: it is no plain one. */
static bool
interval_typmod(TypeName *type, int32 *typmod)
{
	int			n = list_length(type->names);
	Datum		values[2];
	ListCell   *lc;

	*typmod = -1;
	if (type->arrayBounds || type->setof || strcmp(strVal(llast(type->names)), "interval") != 0 ||
		(n == 2 && strcmp(strVal(linitial(type->names)), "pg_catalog") != 0) || n > 2 || list_length(type->typmods) > 2)
		return false;
	if (type->typmods == NIL)
		return true;
	foreach(lc, type->typmods)
	{
		A_Const    *c = lfirst(lc);

		if (!IsA(c, A_Const) || c->isnull || !IsA(&c->val, Integer))
			return false;
		values[foreach_current_index(lc)] = CStringGetDatum(psprintf("%d", intVal(&c->val)));
	}
	*typmod = DatumGetInt32(DirectFunctionCall1(intervaltypmodin,
												PointerGetDatum(construct_array(values, list_length(type->typmods),
																				CSTRINGOID, -2, false, TYPALIGN_CHAR))));
	return true;
}

Interval *
kda_window_literal(ParseState *pstate, Node *raw)
{
	int32		typmod = -1;
	int			location = exprLocation(raw);
	ParseCallbackState callback;
	Interval   *iv;

	if (IsA(raw, A_Expr) && ((A_Expr *) raw)->kind == AEXPR_OP && ((A_Expr *) raw)->lexpr == NULL &&
		list_length(((A_Expr *) raw)->name) == 1 && strcmp(strVal(linitial(((A_Expr *) raw)->name)), "-") == 0)
	{
		iv = IsA(((A_Expr *) raw)->rexpr, TypeCast) ? kda_window_literal(pstate, ((A_Expr *) raw)->rexpr) : NULL;
		return iv ? DatumGetIntervalP(DirectFunctionCall1(interval_um, IntervalPGetDatum(iv))) : NULL;
	}
	if (IsA(raw, TypeCast))
	{
		if (!interval_typmod(((TypeCast *) raw)->typeName, &typmod))
			return NULL;
		raw = ((TypeCast *) raw)->arg;
	}
	if (!IsA(raw, A_Const) || ((A_Const *) raw)->isnull || !IsA(&((A_Const *) raw)->val, String))
		return NULL;
	setup_parser_errposition_callback(&callback, pstate, location);
	iv = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(strVal(&((A_Const *) raw)->val)),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(typmod)));
	cancel_parser_errposition_callback(&callback);
	return iv;
}

bool
kda_window_is_literal(ParseState *pstate, const KdaWindowClause *clause)
{
	ListCell   *lc;

	foreach(lc, clause->args)
		if (kda_window_literal(pstate, lfirst(lc)) == NULL)
			return false;
	return true;
}

static bool
names_column(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	return IsA(node, ColumnRef) || raw_expression_tree_walker(node, names_column, arg);
}

static void
not_constant(Clause *c, const Length *l)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the %s of a window must be a constant", l->what),
			 errhint("For example INTERVAL '1' MINUTE."),
			 parser_errposition(c->pstate, l->location)));
}

/* What the n-th argument, from 0, is called. */
static const char *
argument_name(const KdaWindowClause *raw, int n)
{
	bool		two = raw->kind == KDA_WINDOW_SLIDING || raw->kind == KDA_WINDOW_CUMULATING;

	return n == 0 ? (raw->kind == KDA_WINDOW_SESSION ? "gap" : "size") :
		n == 1 && two ? (raw->kind == KDA_WINDOW_SLIDING ? "slide" : "step") : "offset";
}

/* A name may also be a variable of PL/pgSQL. */
static bool
names_column_of(Node *node, void *arg)
{
	Oid		   *relid = arg;

	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		Node	   *last = llast(((ColumnRef *) node)->fields);

		return IsA(last, String) && get_attnum(*relid, strVal(last)) != InvalidAttrNumber;
	}
	return raw_expression_tree_walker(node, names_column_of, relid);
}

void
kda_window_refuse_columns(ParseState *pstate, const KdaWindowClause *raw, Oid relid)
{
	Clause		c = {pstate, raw, NULL};
	ListCell   *lc;

	foreach(lc, raw->args)
	{
		Length		l = {argument_name(raw, foreach_current_index(lc)), NULL, exprLocation(lfirst(lc))};

		if (names_column_of(lfirst(lc), &relid))
			not_constant(&c, &l);
	}
}

static Length
constant(Clause *c, Node *raw, const char *what)
{
	Length		l = {what, kda_window_literal(c->pstate, raw), exprLocation(raw)};
	Node	   *expr;

	if (l.iv)
		return l;
	if (names_column(raw, NULL))
		not_constant(c, &l);
	expr = transformExpr(c->pstate, raw, EXPR_KIND_SELECT_TARGET);
	expr = coerce_to_target_type(c->pstate, expr, exprType(expr), INTERVALOID, -1,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the %s of a window must be an interval", what),
				 errhint("For example INTERVAL '1' MINUTE."),
				 parser_errposition(c->pstate, l.location)));
	expr = eval_const_expressions(NULL, expr);
	if (!IsA(expr, Const) || ((Const *) expr)->constisnull)
		not_constant(c, &l);
	l.iv = DatumGetIntervalP(((Const *) expr)->constvalue);
	return l;
}

static bool
positive(const Interval *iv)
{
	return iv->time >= 0 && iv->day >= 0 && iv->month >= 0 && (iv->time > 0 || iv->day > 0 || iv->month > 0);
}

static void
check_positive(Clause *c, const Length *l)
{
	if (!positive(l->iv))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of a window must be greater than zero", l->what),
				 errdetail("It is %s.", interval_text(l->iv)),
				 errhint("For example INTERVAL '1' MINUTE."),
				 parser_errposition(c->pstate, l->location)));
}

/* Its number in units; sets of units that cannot be counted together are refused. */
static int64
units(Clause *c, KdaWindowSpec *spec, const Length *l)
{
	const Interval *iv = l->iv;
	bool		fits;

	switch (spec->unit)
	{
		case KDA_UNIT_MONTH:
			fits = iv->day == 0 && iv->time == 0;
			break;
		case KDA_UNIT_DAY:
			fits = iv->month == 0 && iv->time == 0;
			break;
		default:
			fits = iv->month == 0;
			break;
	}
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of a window, %s, cannot be counted in %s", l->what, interval_text(iv),
						spec->unit == KDA_UNIT_MONTH ? "months" : spec->unit == KDA_UNIT_DAY ? "days" : "hours"),
				 errdetail("Months, and days of a time zone, have no fixed length."),
				 errhint("Give all lengths of a window in months, in days, or in hours and shorter units."),
				 parser_errposition(c->pstate, l->location)));
	return spec->unit == KDA_UNIT_MONTH ? iv->month :
		spec->unit == KDA_UNIT_DAY ? iv->day : iv->time + (int64) iv->day * USECS_PER_DAY;
}

/* Months and days of a time zone are calendar units, everything else is microseconds. */
static KdaWindowUnit
unit_of(const Clause *c, const Interval *iv)
{
	if (iv->month != 0)
		return KDA_UNIT_MONTH;
	if (iv->day != 0 && iv->time == 0 && c->time_zone && pg_strcasecmp(c->time_zone, "UTC") != 0)
		return KDA_UNIT_DAY;
	return KDA_UNIT_US;
}

static void
check_count(Clause *c, int min, int max, const char *form)
{
	int			n = list_length(c->raw->args);

	if (n < min || n > max)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s does not take %d %s", kda_window_kind_name(c->raw->kind), n, n == 1 ? "argument" : "arguments"),
				 errhint("%s", form),
				 parser_errposition(c->pstate, c->raw->location)));
}

static void
read_offset(Clause *c, KdaWindowSpec *spec, Node *raw, const Length *size)
{
	Length		l = constant(c, raw, "offset");
	int64		length;

	if (l.iv->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the offset of a window cannot have months"),
				 errdetail("It is %s.", interval_text(l.iv)),
				 parser_errposition(c->pstate, l.location)));
	spec->offset_us = l.iv->time + (int64) l.iv->day * USECS_PER_DAY;
	/* the shortest month: a greater offset would leave one out */
	length = spec->unit == KDA_UNIT_US ? spec->size :
		spec->unit == KDA_UNIT_DAY ? spec->size * USECS_PER_DAY : spec->size * 28 * USECS_PER_DAY;
	if (spec->offset_us >= length || spec->offset_us <= -length)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the offset of a window must be smaller than its size"),
				 errdetail("The offset is %s, the size %s.", interval_text(l.iv), interval_text(size->iv)),
				 errhint("Windows follow one another: leave out of the offset what is a multiple of the size."),
				 parser_errposition(c->pstate, l.location)));
}

KdaWindowSpec *
kda_window_of_clause(ParseState *pstate, const KdaWindowClause *raw, const char *time_zone)
{
	Clause		c = {pstate, raw, time_zone};
	KdaWindowSpec *spec = palloc0(sizeof(KdaWindowSpec));
	Length		size,
				slide;

	spec->kind = raw->kind;
	strlcpy(spec->zone_name, "UTC", sizeof(spec->zone_name));
	switch (raw->kind)
	{
		case KDA_WINDOW_TUMBLING:
			check_count(&c, 1, 2, "TUMBLING (size [, offset])");
			break;
		case KDA_WINDOW_SLIDING:
			check_count(&c, 2, 3, "SLIDING (size, slide [, offset])");
			break;
		case KDA_WINDOW_CUMULATING:
			check_count(&c, 2, 3, "CUMULATING (size, step [, offset])");
			break;
		case KDA_WINDOW_SESSION:
			check_count(&c, 1, 1, "SESSION (gap)");
			break;
		case KDA_WINDOW_STAGGER:
			check_count(&c, 1, 1, "STAGGER (PARTITION BY ... RANGE INTERVAL ...)");
			break;
	}
	size = constant(&c, linitial(raw->args), argument_name(raw, 0));
	check_positive(&c, &size);
	if (!(raw->kind == KDA_WINDOW_SLIDING || raw->kind == KDA_WINDOW_CUMULATING))
		slide = size;
	else
	{
		slide = constant(&c, lsecond(raw->args), argument_name(raw, 1));
		check_positive(&c, &slide);
	}
	if (raw->kind == KDA_WINDOW_SESSION || raw->kind == KDA_WINDOW_STAGGER)
	{
		if (size.iv->month != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the %s of a window cannot have months", size.what),
					 errdetail("It is %s; months have no fixed length.", interval_text(size.iv)),
					 errhint("For example INTERVAL '30' DAY."),
					 parser_errposition(pstate, size.location)));
		spec->unit = KDA_UNIT_US;
	}
	else
		spec->unit = Max(unit_of(&c, size.iv), unit_of(&c, slide.iv));
	spec->size = units(&c, spec, &size);
	spec->slide = units(&c, spec, &slide);
	if (spec->unit != KDA_UNIT_US && time_zone)
		strlcpy(spec->zone_name, time_zone, sizeof(spec->zone_name));
	if (spec->unit == KDA_UNIT_MONTH && time_zone == NULL && raw->kind != KDA_WINDOW_TUMBLING)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s windows of months need a time zone", kda_window_kind_name(raw->kind)),
				 errhint("CREATE ... WITH (time_zone = 'UTC') says in which zone months begin."),
				 parser_errposition(pstate, size.location)));
	if (spec->slide > spec->size)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of a window must not be greater than its size", slide.what),
				 errdetail("The %s is %s, the size %s.", slide.what, interval_text(slide.iv), interval_text(size.iv)),
				 /* Flink's order is the other one */
				 errhint("%s", raw->in_from || raw->key ? "HOP (..., slide, size), CUMULATE (..., step, size): the size comes last." :
						 raw->kind == KDA_WINDOW_SLIDING ? "SLIDING (size, slide): the size comes first." :
						 "CUMULATING (size, step): the size comes first."),
				 parser_errposition(pstate, slide.location)));
	if (spec->size / spec->slide > MAX_WINDOWS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a record would be in " INT64_FORMAT " windows at once", spec->size / spec->slide),
				 errdetail("The limit is %d.", MAX_WINDOWS),
				 errhint("Use a greater %s.", slide.what),
				 parser_errposition(pstate, slide.location)));
	if (raw->kind == KDA_WINDOW_CUMULATING && spec->size % spec->slide != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the size of a cumulating window must be a multiple of its step"),
				 errdetail("The size is %s, the step %s.", interval_text(size.iv), interval_text(slide.iv)),
				 errhint("Use a step that divides the size."),
				 parser_errposition(pstate, slide.location)));
	/* the offset is the argument after the lengths */
	{
		int			lengths = raw->kind == KDA_WINDOW_SLIDING || raw->kind == KDA_WINDOW_CUMULATING ? 2 : 1;

		if (list_length(raw->args) > lengths)
			read_offset(&c, spec, list_nth(raw->args, lengths), &size);
	}
	spec->by_bounds = raw->kind == KDA_WINDOW_SESSION && raw->partition != NIL;
	kda_window_finish(spec);
	return spec;
}
