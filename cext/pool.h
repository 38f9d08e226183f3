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

/* The same for a task that may be in a row with others, such as the steps of a stream: with up to `awake` members once two
 * before it have followed each other within forty microseconds, so that threads are awake, or worth waking for those to
 * come, and as long as sharing them pays; otherwise, and with another library's threads, with up to `asleep`. */
void cylstm_run_in_a_row(int asleep, int awake, cylstm_task task, void *context);

/* What an OpenMP runtime (libgomp) offers: it runs body(data) on its own threads at once, the caller among them, as many as
 * it has for `threads` = 0; each asks which one it is and how many there are. */
typedef struct {
    void (*parallel)(void (*body)(void *), void *data, unsigned threads, unsigned flags);
    int (*me)(void);
    int (*count)(void);
} cylstm_openmp;

/* From now on teams are made of another library's threads instead of the pool's: beside that library, whose threads go on
 * spinning for a while after its own work, they are awake already, and no two threads want one processor. NULL: of the pool's
 * again, as always in a child after fork. Not while a call is under way. */
void cylstm_borrow(const cylstm_openmp *openmp);

/* Returns when every member of the team has come here. What was written before is seen by all after. */
void cylstm_meet(cylstm_team *team);

/* Whether teams are as large as is wanted even where other processes keep their members from running (crowd.h), as tests
 * of many members want it. Not while a call is under way. */
void cylstm_full_teams(int always);

#endif
