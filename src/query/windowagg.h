/*-------------------------------------------------------------------------
 *
 * windowagg.h
 *	  The executor node that advances the groups of a query.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WINDOWAGG_H
#define KDA_WINDOWAGG_H

#include "kda_stream.h"
#include "nodes/extensible.h"

/* custom_private: nkeys, then for each aggregate: number of arguments, has a filter, aggfnoid. */
extern const CustomScanMethods kda_windowagg_scan_methods;

#endif							/* KDA_WINDOWAGG_H */
