/* A processor of its own for each member of a team.
 *
 * A thread is woken where it last ran, or beside who wakes it, unless the system knows a better processor. In a virtual
 * machine it often does not: Linux under KVM takes a processor that has halted for one that the host has taken away, so a
 * member that was once on the caller's processor is woken there again and again, while another one is idle, and only
 * balancing, 10 ms later and more, would move it. So members note where they run, and the caller keeps one that would be in
 * the way, or that has not run yet, from the processors of the others until it has begun to run.
 *
 * Only pool.c includes this. */
#ifndef CYLSTM_PROCESSORS_H
#define CYLSTM_PROCESSORS_H

#if defined(__linux__) && !defined(__ANDROID__)
#include <pthread.h>
#include <sched.h>
#include <string.h>

#define NOWHERE -1 /* has not run yet */

/* Of a thread of the pool. */
typedef struct {
    pthread_t thread;
    int where; /* the processor that it last ran on */
    int kept;  /* whether it is kept from some, and may run on these otherwise: */
    cpu_set_t everywhere;
} place;

/* Keeps members 1 to count - 1 of a team, who are about to be woken, from each other's processors and the caller's. */
static void keep_apart(place *places, int count)
{
    cpu_set_t taken;
    CPU_ZERO(&taken);
    const int caller = sched_getcpu();
    if (caller < 0 || caller >= CPU_SETSIZE) return;
    CPU_SET(caller, &taken);
    int in_the_way[MOST_THREADS], found = 0;
    for (int me = 1; me < count; me++) {
        const int where = places[me].where;
        if (where >= 0 && where < CPU_SETSIZE && !CPU_ISSET(where, &taken))
            CPU_SET(where, &taken);
        else
            in_the_way[found++] = me;
    }
    for (int n = 0; n < found; n++) {
        place *one = &places[in_the_way[n]];
        cpu_set_t may;
        if (pthread_getaffinity_np(one->thread, sizeof may, &may) != 0) return;
        one->everywhere = may;
        int first = NOWHERE;
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (CPU_ISSET(cpu, &taken)) CPU_CLR(cpu, &may);
            if (first == NOWHERE && CPU_ISSET(cpu, &may)) first = cpu;
        }
        if (first == NOWHERE) return; /* more members than processors */
        if (pthread_setaffinity_np(one->thread, sizeof may, &may) != 0) return;
        one->kept = 1;
        CPU_SET(first, &taken); /* the one that the system most often chooses */
    }
}

/* A member that has begun to run may be moved again as the system likes. Asking for all processors there could be is best: it
 * also gives those that a container is allowed later. */
static void let_go(place *one)
{
    if (!one->kept) return;
    one->kept = 0;
    cpu_set_t all, given;
    memset(&all, 0xff, sizeof all);
    pthread_setaffinity_np(pthread_self(), sizeof all, &all);
    if (pthread_getaffinity_np(pthread_self(), sizeof given, &given) != 0 || !CPU_EQUAL(&given, &one->everywhere))
        pthread_setaffinity_np(pthread_self(), sizeof one->everywhere, &one->everywhere);
}

static void note_where(place *one) { one->where = sched_getcpu(); }
static void begins(place *one, pthread_t thread) { *one = (place){.thread = thread, .where = NOWHERE}; }

#else /* there is no such call, or no such need */
typedef struct {
    char nothing;
} place;
static void keep_apart(place *places, int count) { (void)places, (void)count; }
static void let_go(place *one) { (void)one; }
static void note_where(place *one) { (void)one; }
#define begins(one, thread) ((void)0)
#endif

#endif
