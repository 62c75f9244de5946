/*-------------------------------------------------------------------------
 *
 * hook.c
 *	  KdaWindowAgg in the planner: while a worker plans a per-batch part, our
 *	  node takes the place of core's Agg.
 *
 * The node's custom_scan_tlist is the child's target list followed by the
 * aggregates; since that prefix is the child's row, setrefs.c turns expressions
 * over it into references to the child's slot.  custom_exprs hold the group
 * keys and the arguments and filters of the aggregates.  Its executor side is
 * windowagg.c.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planner.h"
#include "optimizer/tlist.h"
#include "query/groups.h"
#include "query/windowagg.h"

KdaGroups  *kda_planning_groups = NULL;

static create_upper_paths_hook_type next_hook = NULL;

static Plan *
plan_path(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
		  List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	Plan	   *child = linitial(custom_plans);
	List	   *layout = NIL;
	List	   *exprs = NIL;
	List	   *private = NIL;
	AttrNumber	resno = 1;
	int			nkeys = linitial_int(path->custom_private);
	int			i = 0;
	ListCell   *lc,
			   *la;

	foreach(lc, child->targetlist)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		tle->resno = resno++;
		layout = lappend(layout, tle);
	}
	private = list_make1_int(nkeys);
	foreach(lc, root->parse->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Aggref	   *agg;
		int			nargs = 0;

		if (i++ < nkeys)
		{
			exprs = lappend(exprs, copyObject(tle->expr));
			continue;
		}
		agg = castNode(Aggref, tle->expr);
		layout = lappend(layout, makeTargetEntry((Expr *) copyObject(agg), resno++, NULL, false));
		foreach(la, agg->args)
		{
			exprs = lappend(exprs, copyObject(lfirst_node(TargetEntry, la)->expr));
			nargs++;
		}
		private = lappend_int(private, nargs);
		private = lappend_int(private, agg->aggfilter != NULL);
		private = lappend_int(private, (int) agg->aggfnoid);
		if (agg->aggfilter)
			exprs = lappend(exprs, copyObject(agg->aggfilter));
	}
	scan->scan.scanrelid = 0;
	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = NIL;
	scan->flags = path->flags;
	scan->custom_plans = custom_plans;
	scan->custom_exprs = exprs;
	scan->custom_private = private;
	scan->custom_scan_tlist = layout;
	scan->methods = &kda_windowagg_scan_methods;
	return &scan->scan.plan;
}

static const CustomPathMethods path_methods = {
	.CustomName = "KdaWindowAgg",
	.PlanCustomPath = plan_path
};

static void
upper_paths(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input_rel, RelOptInfo *output_rel,
			void *extra)
{
	CustomPath *path;
	Path	   *input;

	if (next_hook)
		next_hook(root, stage, input_rel, output_rel, extra);

	/* Only the outermost query of a per-batch part; its subqueries group as ever. */
	if (kda_planning_groups == NULL || stage != UPPERREL_GROUP_AGG ||
		root->query_level != 1 || root->parent_root != NULL || root->parse->groupingSets)
		return;
	if (list_length(root->parse->targetList) != kda_planning_groups->nkeys + kda_planning_groups->naggs)
		elog(ERROR, "the per-batch part has %d columns, %d keys and %d states are expected",
			 list_length(root->parse->targetList), kda_planning_groups->nkeys, kda_planning_groups->naggs);

	input = input_rel->cheapest_total_path;
	path = makeNode(CustomPath);
	path->path.pathtype = T_CustomScan;
	path->path.parent = output_rel;
	path->path.pathtarget = output_rel->reltarget;
	path->path.parallel_aware = false;
	path->path.parallel_safe = false;
	path->path.rows = 1;
	path->path.startup_cost = input->total_cost;
	path->path.total_cost = input->total_cost + input->rows * cpu_tuple_cost;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->custom_paths = list_make1(input);
	path->custom_private = list_make1_int(kda_planning_groups->nkeys);
	path->methods = &path_methods;

	output_rel->pathlist = NIL;
	output_rel->partial_pathlist = NIL;
	add_path(output_rel, &path->path);
}

void
kda_query_init(void)
{
	next_hook = create_upper_paths_hook;
	create_upper_paths_hook = upper_paths;
	RegisterCustomScanMethods(&kda_windowagg_scan_methods);
}
