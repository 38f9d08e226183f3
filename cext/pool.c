#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* processors.h says where threads may run */
#endif

#include "pool.h"

#define MOST_THREADS 256

#include "crowd.h"
#include "processors.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define RELAX() _mm_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ __volatile__("yield")
#else
#define RELAX() ((void)0)
#endif

#ifdef _WIN32
#include <windows.h>
typedef SRWLOCK lock_type;
typedef CONDITION_VARIABLE signal_type;
#define LOCK_START SRWLOCK_INIT
#define SIGNAL_START CONDITION_VARIABLE_INIT
#define LOCK(l) AcquireSRWLockExclusive(l)
#define UNLOCK(l) ReleaseSRWLockExclusive(l)
#define WAIT(s, l) SleepConditionVariableSRW(s, l, INFINITE, 0)
#define WAKE(s) WakeConditionVariable(s)
#define GIVE_WAY() SwitchToThread()
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
typedef pthread_mutex_t lock_type;
typedef pthread_cond_t signal_type;
#define LOCK_START PTHREAD_MUTEX_INITIALIZER
#define SIGNAL_START PTHREAD_COND_INITIALIZER
#define LOCK(l) pthread_mutex_lock(l)
#define UNLOCK(l) pthread_mutex_unlock(l)
#define WAIT(s, l) pthread_cond_wait(s, l)
#define WAKE(s) pthread_cond_signal(s)
#define GIVE_WAY() sched_yield()
#endif

/* A member that waits for the others spins for some ten microseconds, the length of a small step, and then gives way:
 * there may be fewer processors than members. */
#define SPINS 200

/* A thread that has done its part looks out for the next task for a while before it sleeps: calls often follow each other, and
 * waking takes as long as a small one. A task that comes in time for that is in a row with the last one. */
#define AWAKE 50000 /* ns */
#define IN_A_ROW 40000 /* ns from the end of one task to the next one's beginning */
#define SPINS_PER_LOOK 16 /* at the clock */
#define FIRST_SHARED 2 /* of a row, counted from 0: two tasks alone are not worth waking threads for */

struct cylstm_team {
    atomic_int count;
    atomic_int arrived;
    atomic_uint meetings;
};

/* What this thread has waited for others in its task, where that was longer than spinning lasts. */
static _Thread_local times waited;

static struct {
    atomic_flag busy; /* a caller has the threads */
    lock_type lock;   /* of what follows */
    signal_type work[MOST_THREADS]; /* for each thread, and whether it sleeps */
    int asleep[MOST_THREADS];
    int woken[MOST_THREADS]; /* for this task, or just started */
    atomic_int wanted[MOST_THREADS]; /* whether the task waits for this thread to take part; changed under the lock */
    int started;         /* threads */
    place places[MOST_THREADS]; /* of each thread */
    cylstm_task task;
    void *context;
    cylstm_team team;
    atomic_int at_work; /* members of the team that have not returned, the caller apart */
    cylstm_openmp borrowed; /* threads of another library, or NULLs */
    int64_t began; /* the task, on the wall's clock */
    member_times found[MOST_THREADS]; /* in it, by member */
    /* of tasks that may be in a row: when the last one ended and whether it was shared, how many there are, and how long one took
     * a thread alone */
    atomic_llong ended, shared, row, alone;
} pool = {.busy = ATOMIC_FLAG_INIT, .lock = LOCK_START, .work = {[0 ... MOST_THREADS - 1] = SIGNAL_START}};

void cylstm_meet(cylstm_team *team)
{
    const int count = atomic_load_explicit(&team->count, memory_order_relaxed);
    if (count == 1) return;
    const unsigned meeting = atomic_load_explicit(&team->meetings, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == count - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->meetings, meeting + 1, memory_order_release);
        return;
    }
    for (int turn = 0; turn < SPINS; turn++) {
        if (atomic_load_explicit(&team->meetings, memory_order_acquire) != meeting) return;
        RELAX();
    }
    const times start = now();
    while (atomic_load_explicit(&team->meetings, memory_order_acquire) == meeting) GIVE_WAY();
    waited = plus(waited, between(start, now()));
}

/* One member's part of a task, with a note of how long it took, from when the task began or, for one that had to be woken, its
 * part: others may have had the processor of a member that was awake and begins late. Waking one takes as long as it takes. */
static void take_part(cylstm_task task, void *context, int me, int count, cylstm_team *team, int woken)
{
    waited = (times){0, 0};
    const times start = at(woken ? wall_clock() : pool.began);
    task(context, me, count, team);
    pool.found[me] = (member_times){between(start, now()), waited};
}

static int is_wanted(int me) { return atomic_load_explicit(&pool.wanted[me], memory_order_relaxed); }
static void want(int me, int yes) { atomic_store_explicit(&pool.wanted[me], yes, memory_order_relaxed); }

/* Thread number `me` takes part in each task whose team has so many members. Others neither wake it nor keep it awake. */
static void serve(int me)
{
    for (;;) {
        const int64_t until = wall_clock() + AWAKE;
        for (int turn = 1; !is_wanted(me); turn++) {
            RELAX();
            if (turn % SPINS_PER_LOOK == 0 && wall_clock() > until) break;
        }
        LOCK(&pool.lock);
        while (!is_wanted(me)) {
            pool.asleep[me] = 1;
            WAIT(&pool.work[me], &pool.lock);
            pool.asleep[me] = 0;
        }
        want(me, 0);
        const cylstm_task task = pool.task;
        void *context = pool.context;
        const int count = pool.team.count, woken = pool.woken[me];
        UNLOCK(&pool.lock);
        let_go(&pool.places[me]);
        take_part(task, context, me, count, &pool.team, woken);
        note_where(&pool.places[me]);
        atomic_fetch_sub_explicit(&pool.at_work, 1, memory_order_release);
    }
}

#ifdef _WIN32
static DWORD WINAPI thread_main(void *me)
{
    serve((int)(intptr_t)me);
    return 0;
}

static int start_thread(int me)
{
    HANDLE thread = CreateThread(NULL, 0, thread_main, (void *)(intptr_t)me, 0, NULL);
    if (thread) CloseHandle(thread);
    return thread != NULL;
}

static int watch_fork(void) { return 1; } /* there is none */
#else
static void *thread_main(void *me)
{
    serve((int)(intptr_t)me);
    return NULL;
}

/* Only the thread that forks goes on in the child: the others, and whatever they held, are gone. */
static void after_fork(void)
{
    const lock_type fresh_lock = LOCK_START;
    const signal_type fresh_signal = SIGNAL_START;
    pool.lock = fresh_lock;
    for (int me = 0; me < MOST_THREADS; me++) pool.work[me] = fresh_signal, pool.asleep[me] = 0, want(me, 0);
    pool.started = 0;
    cylstm_borrow(NULL); /* an OpenMP runtime is lost after fork */
    crowd.left_out = 0;
    atomic_flag_clear(&pool.busy);
}

static int watch_fork(void)
{
    static int watched; /* changed only by the caller that has the threads */
    if (!watched && pthread_atfork(NULL, NULL, after_fork) == 0) watched = 1;
    return watched;
}

static int start_thread(int me)
{
    if (!watch_fork()) return 0;
    sigset_t all, before; /* signals are for the threads of the program */
    pthread_t thread;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, &attributes, thread_main, (void *)(intptr_t)me);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!failed) begins(&pool.places[me], thread);
    return !failed;
}
#endif

/* One task on borrowed threads. The runtime may have more of them than are wanted, which then have nothing to do: asking it
 * for fewer would make it end the others. */
typedef struct {
    int wanted;
    cylstm_task task;
    void *context;
    cylstm_team team;
} borrowed_work;

static void borrowed_member(void *data)
{
    borrowed_work *work = data;
    const int me = pool.borrowed.me(), threads = pool.borrowed.count();
    const int count = threads < work->wanted ? threads : work->wanted;
    if (me >= count) return;
    atomic_store_explicit(&work->team.count, count, memory_order_relaxed); /* by each: nobody else's is awaited */
    take_part(work->task, work->context, me, count, &work->team, 1); /* nobody says whether it was awake */
}

void cylstm_borrow(const cylstm_openmp *openmp)
{
    const cylstm_openmp none = {NULL, NULL, NULL};
    pool.borrowed = openmp ? *openmp : none;
}

void cylstm_full_teams(int always) { crowd.ignored = always; }

/* Returns how many members there were. */
static int on_borrowed(int wanted, cylstm_task task, void *context)
{
    borrowed_work work = {.wanted = wanted, .task = task, .context = context};
    pool.borrowed.parallel(borrowed_member, &work, 0, 0);
    return work.team.count;
}

/* As on_borrowed. */
static int on_own(int wanted, cylstm_task task, void *context)
{
    const int before = pool.started;
    while (pool.started < wanted - 1 && start_thread(pool.started + 1)) pool.started++;
    const int count = pool.started + 1 < wanted ? pool.started + 1 : wanted;
    keep_apart(pool.places, count);
    LOCK(&pool.lock);
    pool.task = task, pool.context = context;
    pool.team.count = count;
    atomic_store_explicit(&pool.team.arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.at_work, count - 1, memory_order_relaxed);
    for (int me = 1; me < count; me++) {
        want(me, 1);
        pool.woken[me] = pool.asleep[me] || me > before;
        if (pool.asleep[me]) WAKE(&pool.work[me]);
    }
    UNLOCK(&pool.lock);
    take_part(task, context, 0, count, &pool.team, 0);
    for (int turn = 0; atomic_load_explicit(&pool.at_work, memory_order_acquire) > 0; turn += turn < SPINS) {
        if (turn < SPINS)
            RELAX();
        else
            GIVE_WAY();
    }
    return count;
}

/* alone: of a task in a row, how long one like it took a thread alone; otherwise 0. Returns how many members there were. */
static int run(int wanted, cylstm_task task, void *context, int64_t alone)
{
    if (wanted > MOST_THREADS) wanted = MOST_THREADS;
    if (wanted <= 1 || atomic_flag_test_and_set_explicit(&pool.busy, memory_order_acquire)) {
        cylstm_team one = {.count = 1};
        task(context, 0, 1, &one);
        return 1;
    }
    int count = 1;
    wanted = uncrowded(wanted);
    if (wanted == 1) {
        cylstm_team one = {.count = 1};
        task(context, 0, 1, &one);
    } else {
        const int64_t start = pool.began = wall_clock();
        count = pool.borrowed.parallel && watch_fork() ? on_borrowed(wanted, task, context) : on_own(wanted, task, context);
        const int64_t took = wall_clock() - start;
        if (count > 1) look_back(pool.found, count, took);
        if (count > 1 && alone > 0) compare(took, alone);
    }
    atomic_flag_clear_explicit(&pool.busy, memory_order_release);
    return count;
}

void cylstm_run(int wanted, cylstm_task task, void *context) { run(wanted, task, context, 0); }

#define GET(name) atomic_load_explicit(&pool.name, memory_order_relaxed)
#define SET(name, value) atomic_store_explicit(&pool.name, value, memory_order_relaxed)

void cylstm_run_in_a_row(int asleep, int awake, cylstm_task task, void *context)
{
    if (asleep > 1 || awake <= 1 || pool.borrowed.parallel) { /* nobody says whether borrowed threads are awake */
        run(asleep, task, context, 0);
        return;
    }
    const int64_t start = wall_clock(), row = start - GET(ended) < IN_A_ROW ? GET(row) + 1 : 0;
    const int shared = row >= FIRST_SHARED && (start >= rows.until || crowd.ignored);
    /* the first one, which wakes threads, counts for nothing: that may take half a millisecond in a virtual machine */
    const int count = run(shared ? awake : 1, task, context, GET(shared) ? GET(alone) : 0);
    const int64_t end = wall_clock();
    if (count == 1) SET(alone, end - start);
    SET(shared, count > 1);
    SET(row, row);
    SET(ended, end);
}
