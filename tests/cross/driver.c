/* The kernels and the pool without Python: a layer forward and backward, the losses, an optimiser and the elementwise
 * functions, on the numbers of one file into another, for every instruction set, float and double, and teams of 1 to 7.
 * check.py writes the one and judges the other.
 *
 *     driver INPUT OUTPUT
 *
 * The input: arrays of doubles, each behind its length. The output: the same, each behind a name of 32 bytes too. */
#include "kernels.h"
#include "pool.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZES, X, IDS, H0, C0, W_, R_, B_, TARGETS, VALUES, WEIGHTS, NUMBERS, INPUTS };

static double *inputs[INPUTS]; /* T, B, I, H; x (T,B,I) or ids (T,B); targets: classes (T,B), values (T,B,H); weights (T,B) */
static int64_t lengths[INPUTS];
static FILE *output;

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void *zeros(ptrdiff_t n, size_t size)
{
    void *memory = calloc((size_t)n + 1, size);
    if (!memory) fail("no memory");
    return memory;
}

static void read_inputs(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) fail("the input cannot be read");
    for (int n = 0; n < INPUTS; n++) {
        if (fread(&lengths[n], sizeof(int64_t), 1, file) != 1) fail("the input ends too early");
        const size_t count = (size_t)lengths[n];
        inputs[n] = zeros((ptrdiff_t)count, sizeof(double));
        if (fread(inputs[n], sizeof(double), count, file) != count) fail("the input ends too early");
    }
    fclose(file);
}

static int64_t *integers(int which)
{
    int64_t *values = zeros((ptrdiff_t)lengths[which], sizeof(int64_t));
    for (int64_t n = 0; n < lengths[which]; n++) values[n] = (int64_t)inputs[which][n];
    return values;
}

static void put(const char *isa, const char *type, int members, const char *what, int64_t n, const double *values)
{
    char name[32] = {0};
    snprintf(name, sizeof name, "%s %s %d %s", isa, type, members, what);
    fwrite(name, sizeof name, 1, output);
    fwrite(&n, sizeof n, 1, output);
    fwrite(values, sizeof(double), (size_t)n, output);
}

#define NAME(name) name##_f32
#define REAL float
#define TYPE "f32"
#define TABLE cylstm_table_f32
#include "driver_body.h"
#define NAME(name) name##_f64
#define REAL double
#define TYPE "f64"
#define TABLE cylstm_table_f64
#include "driver_body.h"

/* Members tell each other the round they are in, and meet: nobody may see another one's last round, or next. */
enum { TURNS = 24, ROUNDS = 20, MOST = 8 };
typedef struct {
    int round[2][MOST], wrong[MOST], count, count_within;
} rounds;

static void count_members(void *context, int me, int count, cylstm_team *team)
{
    cylstm_meet(team);
    if (me == 0) *(int *)context = count;
}

static void take_part(void *context, int me, int count, cylstm_team *team)
{
    rounds *all = context;
    for (int n = 1; n <= ROUNDS; n++) {
        all->round[n % 2][me] = n;
        cylstm_meet(team);
        for (int other = 0; other < count; other++) all->wrong[me] += all->round[n % 2][other] != n;
    }
    if (me == 0) {
        all->count = count;
        cylstm_run(3, count_members, &all->count_within); /* the threads are busy: alone */
    }
}

static void check_pool(void)
{
    for (int turn = 0; turn < TURNS; turn++) {
        const int wanted = 1 + turn * 5 % MOST;
        rounds all = {.count = 0};
        int wrong = 0;
        cylstm_run(wanted, take_part, &all);
        for (int me = 0; me < MOST; me++) wrong += all.wrong[me];
        if (wrong) fail("pool: members passed a meeting before all had come");
        if (all.count != wanted) fail("pool: a team of another size than was asked for");
        if (all.count_within != (wanted == 1 ? 3 : 1)) fail("pool: a task within a task: another team than expected");
    }
}

int main(int argc, char **argv)
{
    static const char *const sets[] = {"baseline", "avx2", "avx512"};
    static const int members[] = {1, 2, 3, 7};
    if (argc != 3) fail("driver INPUT OUTPUT");
    read_inputs(argv[1]);
    if (!(output = fopen(argv[2], "wb"))) fail("the output cannot be written");
    cylstm_full_teams(1);
    check_pool();
    if (!cylstm_select(NULL) || cylstm_select("mmx")) fail("cylstm_select: another answer than expected");
    for (int n = 0; n < 3; n++) {
        const cylstm_kernels *kernels = cylstm_select(sets[n]);
        if (!kernels) continue;
        for (int m = 0; m < 4; m++) {
            run_f32(kernels->isa, &kernels->f32, members[m]);
            run_f64(kernels->isa, &kernels->f64, members[m]);
        }
    }
    return fclose(output) != 0;
}
