/* The threads of cylstm: a team works on one task, meets at barriers, and is parked in between.
 *
 * This is the only part of cext/ with state: the parked threads. They are started on first use, hold no locks and
 * burn no time while parked, and are forgotten (and started anew when needed) in a child after fork.
 *
 * Kernels give the same bits wherever a matrix is cut by its columns, so how many members a team has changes nothing
 * but the time: a caller that finds the threads busy works alone. */
#ifndef CYLSTM_POOL_H
#define CYLSTM_POOL_H

typedef struct cylstm_team cylstm_team;

/* One member's part of the work: member `me` of `count`. */
typedef void (*cylstm_task)(void *context, int me, int count, cylstm_team *team);

/* Runs the task with up to `wanted` members, the caller among them, and returns when all are done. Never fails: where
 * threads cannot be had, or are at work for another caller, the team is smaller. */
void cylstm_run(int wanted, cylstm_task task, void *context);

/* Returns when every member of the team has come here. What was written before is seen by all after. */
void cylstm_meet(cylstm_team *team);

#endif
