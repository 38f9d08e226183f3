/* A crowded machine: how many members a team should have where other processes want the processors, too.
 *
 * Members wait for each other. Once another process runs on the processor of one of them, all wait until the scheduler gives
 * it back, some milliseconds later: two threads may then take longer than one. So each member of a team measures for how much
 * of a task it ran, from when the task began if it was awake then: in between others had its processor (who waits gives way to
 * them). If some were robbed like that, and the team did less than the other members would have done without them, teams are
 * that much smaller for a while, after which a full one is tried again. A while is short at first, twice as long each time that
 * the full team is robbed again, and half as long each time that it has run undisturbed for so long.
 *
 * Only pool.c includes this; only the caller that has the threads changes what is here. */
#ifndef CYLSTM_CROWD_H
#define CYLSTM_CROWD_H

#include <stdint.h>

#ifdef CYLSTM_CLOCKS
CYLSTM_CLOCKS /* a test's own */
#elif defined(_WIN32)
#include <windows.h>
static int64_t wall_clock(void)
{
    LARGE_INTEGER count, each_second;
    QueryPerformanceCounter(&count), QueryPerformanceFrequency(&each_second);
    return (int64_t)(1e9 * (double)count.QuadPart / (double)each_second.QuadPart);
}

/* A thread's time is told in steps of 15 ms there, too coarse for a task. */
#define OWN_IS_WALL
#else
#include <time.h>
static int64_t nanoseconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t wall_clock(void) { return nanoseconds(CLOCK_MONOTONIC); }
static int64_t own_clock(void) { return nanoseconds(CLOCK_THREAD_CPUTIME_ID); }
#endif

/* Nanoseconds, by the clock on the wall and by the thread's own, which stands still while it does not run. */
typedef struct {
    int64_t wall, own;
} times;

#ifdef OWN_IS_WALL /* nobody counts as robbed */
static times at(int64_t wall) { return (times){wall, wall}; }
#else
static times at(int64_t wall) { return (times){wall, own_clock()}; }
#endif
static times now(void) { return at(wall_clock()); }
static times between(times from, times to) { return (times){to.wall - from.wall, to.own - from.own}; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static times plus(times a, times b) { return (times){a.wall + b.wall, a.own + b.own}; }

/* Of one member in one task: how long it took, and what of that it waited for others. */
typedef struct {
    times all, waited;
} member_times;

#define SHORTEST_WHILE 10000000 /* ns */
#define LONGEST_WHILE 1000000000 /* ns */
#define MOST_TASKS 16 /* that are robbed like the last one: as long as these take, if that is longer */
#define NOT_WORTH_A_LOOK 200000 /* ns: an interrupt may take so long */
#define ROBBED 0.9 /* who ran for less of its task */
#define BETTER 1.2 /* times as much as the others would have done: a full team is kept */
#define MOST_LOST 20000000 /* ns that sharing tasks in a row may cost: a thread may have to wait so long for a processor of its own */

static struct {
    int ignored;   /* teams are full whatever they find */
    int left_out;  /* of those that are wanted */
    int64_t until; /* then a full one is tried again */
    int64_t how_long, undisturbed;
} crowd;

/* Of tasks in a row, which are too short for that: sharing them has cost so much more than it has gained, and is left alone
 * until then. */
static struct {
    int64_t lost, how_long;
    _Atomic int64_t until; /* read by all callers */
} rows;

/* How many members of the wanted ones a team has now. */
static int uncrowded(int wanted)
{
    if (crowd.ignored || crowd.left_out == 0) return wanted;
    if (wall_clock() < crowd.until) return wanted > crowd.left_out ? wanted - crowd.left_out : 1;
    crowd.left_out = 0, crowd.undisturbed = 0;
    return wanted;
}

/* A while twice as long as the last one, after a task that took so long. */
static int64_t longer_while(int64_t how_long, int64_t took)
{
    const int64_t least = larger(SHORTEST_WHILE, took), most = larger(LONGEST_WHILE, MOST_TASKS * took);
    return larger(least, 2 * how_long < most ? 2 * how_long : most);
}

/* After a task that a team took so long for. */
static void look_back(const member_times *found, int count, int64_t took)
{
    double done = 0, best = 0;
    int robbed = 0;
    for (int me = 0; me < count; me++) {
        const times all = found[me].all, worked = between(found[me].waited, all);
        const double ran = worked.wall > 0 ? (double)worked.own / worked.wall : 1;
        done += worked.own;
        best = ran > best ? ran : best;
        robbed += all.own < ROBBED * all.wall && all.wall - all.own > NOT_WORTH_A_LOOK;
    }
    const int others = robbed < count ? count - robbed : 1;
    if (robbed > 0 && others < count && done < BETTER * others * best * took) {
        crowd.how_long = longer_while(crowd.how_long, took);
        crowd.left_out += count - others, crowd.until = wall_clock() + crowd.how_long;
        return;
    }
    if (crowd.left_out > 0) return; /* not a full team */
    crowd.undisturbed += took;
    if (crowd.undisturbed > crowd.how_long) crowd.how_long /= 2, crowd.undisturbed = 0;
}

/* After a task in a row that a team took so long for, and one thread alone so long for one like it. */
static void compare(int64_t took, int64_t alone)
{
    rows.lost += took - alone;
    if (rows.lost < -MOST_LOST) rows.lost = 0, rows.how_long /= 2;
    if (rows.lost <= MOST_LOST) return;
    rows.how_long = longer_while(rows.how_long, took);
    rows.until = wall_clock() + rows.how_long;
    rows.lost = 0;
}

#endif
