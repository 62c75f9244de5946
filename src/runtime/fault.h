/*-------------------------------------------------------------------------
 *
 * fault.h
 *	  Named points at which tests make a worker fail.
 *
 * KDA_FAULT("name") is nothing at all unless the library is built with
 * -DKDA_FAULTS (test/run builds such a copy beside the one that is shipped).
 * There a test arms one point at a time: at its n-th passing in a pipeline
 * or deliver worker it raises an error of a given SQLSTATE, or kills the process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_FAULT_H
#define KDA_FAULT_H

#ifdef KDA_FAULTS

#define KDA_FAULT(name)	kda_fault_point(name)
extern void kda_fault_point(const char *name);

#define KDA_MAX_FAULT_POINTS	64

/* In KdaShared, protected by its lock.  A crash of the server disarms it. */
typedef struct KdaFaultState
{
	char		name[32];		/* of the armed point; empty: none */
	char		action[8];		/* SQLSTATE, or "kill" */
	int			countdown;
	/* the points that have been passed since the server started */
	int			nseen;
	struct
	{
		char		name[32];
		long		count;
	}			seen[KDA_MAX_FAULT_POINTS];
} KdaFaultState;

#else

#define KDA_FAULT(name)	((void) 0)

#endif

#endif							/* KDA_FAULT_H */
