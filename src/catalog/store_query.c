/*-------------------------------------------------------------------------
 *
 * store_query.c
 *	  Analysed queries kept in the catalog.
 *
 * A view holds a query as a tree with OIDs: it follows renames, its
 * dependencies are known by column, and pg_dump writes it as text.  The parts
 * of a continuous query are such views.  The INSERT of a pump is a rule ON
 * INSERT of the pump's view, for the same reasons.
 *
 * Called in sessions (CREATE), and by workers to read the INSERT.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_rewrite.h"
#include "catalog/store_query.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_utilcmd.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteDefine.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteSupport.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

Oid
kda_store_view(const char *name, Query *query, Oid owner)
{
	CreateStmt *create = makeNode(CreateStmt);
	KdaOwnerScope scope;
	ObjectAddress view;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node	   *expr = (Node *) tle->expr;

		if (tle->resjunk)
			continue;
		if (type_is_collatable(exprType(expr)) && !OidIsValid(exprCollation(expr)))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_COLLATION),
					 errmsg("could not determine which collation to use for column \"%s\"", tle->resname),
					 errhint("Use the COLLATE clause to set the collation explicitly.")));
		create->tableElts = lappend(create->tableElts,
									makeColumnDef(tle->resname, exprType(expr), exprTypmod(expr), exprCollation(expr)));
	}
	create->relation = makeRangeVar(KDA_STORAGE_SCHEMA, pstrdup(name), -1);
	create->oncommit = ONCOMMIT_NOOP;

	kda_owner_begin(&scope);
	view = DefineRelation(create, RELKIND_VIEW, owner, NULL, NULL);
	CommandCounterIncrement();
	StoreViewQuery(view.objectId, copyObject(query), false);
	kda_owner_end(&scope);
	CommandCounterIncrement();
	return view.objectId;
}

/*---- the INSERT of a pump */

/* VALUES (new.a, new.b …) of the view's columns; an error in one points to what it comes from. */
static Node *
raw_values(Oid view, List *targets)
{
	Relation	rel = table_open(view, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	SelectStmt *values = makeNode(SelectStmt);
	List	   *row = NIL;

	for (int i = 0; i < desc->natts; i++)
	{
		ColumnRef  *ref = makeNode(ColumnRef);

		ref->fields = list_make2(makeString("new"), makeString(pstrdup(NameStr(TupleDescAttr(desc, i)->attname))));
		ref->location = list_length(targets) == desc->natts ? list_nth_node(ResTarget, targets, i)->location : -1;
		row = lappend(row, ref);
	}
	values->valuesLists = list_make1(row);
	table_close(rel, NoLock);
	return (Node *) values;
}

void
kda_store_insert(Oid view, InsertStmt *insert, List *targets, const char *text)
{
	RuleStmt   *rule = makeNode(RuleStmt);
	List	   *actions;
	Node	   *condition;
	Query	   *action;

	rule->relation = makeRangeVar(get_namespace_name(get_rel_namespace(view)), get_rel_name(view), -1);
	rule->rulename = KDA_INSERT_RULE;
	rule->event = CMD_INSERT;
	rule->instead = true;
	insert = copyObject(insert);
	insert->selectStmt = raw_values(view, targets);
	rule->actions = list_make1(insert);
	transformRuleStmt(rule, text, &actions, &condition);
	kda_check_query_permissions(linitial_node(Query, actions));
	/* some of what cannot be inserted is only found when defaults are filled in */
	action = copyObject(linitial_node(Query, actions));
	AcquireRewriteLocks(action, true, false);
	(void) QueryRewrite(action);
	DefineQueryRewrite(KDA_INSERT_RULE, view, condition, CMD_INSERT, true, false, actions);
	CommandCounterIncrement();
	kda_tie_insert(view);
}

Oid
kda_stored_insert_rule(Oid view, bool missing_ok)
{
	return get_rewrite_oid(view, KDA_INSERT_RULE, missing_ok);
}

void
kda_tie_insert(Oid view)
{
	ObjectAddress self,
				parent;
	Oid			rule = kda_stored_insert_rule(view, true);

	if (!OidIsValid(rule))
		return;
	ObjectAddressSet(self, RewriteRelationId, rule);
	ObjectAddressSet(parent, RelationRelationId, view);
	recordDependencyOn(&self, &parent, DEPENDENCY_INTERNAL);
}

Query *
kda_stored_insert(Oid view)
{
	Relation	rel = table_open(view, AccessShareLock);
	RuleLock   *rules = rel->rd_rules;
	Query	   *found = NULL;

	for (int i = 0; rules && i < rules->numLocks; i++)
		if (rules->rules[i]->event == CMD_INSERT && rules->rules[i]->isInstead &&
			list_length(rules->rules[i]->actions) == 1)
			found = copyObject(linitial_node(Query, rules->rules[i]->actions));
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pump \"%s\" has lost its rule %s", RelationGetRelationName(rel), KDA_INSERT_RULE),
				 errhint("DROP the pump and CREATE it again.")));
	table_close(rel, NoLock);
	return found;
}
