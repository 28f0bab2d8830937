/* One network on one thread and on several: the same bytes, sooner.
 *
 *   lowbit compile net.onnx --data net.toml --threads 2 --name net -o out
 *   make -C examples/c threads MODEL=$PWD/out && examples/c/threads 2
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net.h"
#include "pool.h"

#define RUNS 200

static unsigned char arena[NET_ARENA_BYTES + 1] __attribute__((aligned(NET_ARENA_ALIGN)));
static unsigned char input[NET_INPUT0_BYTES], one[NET_OUTPUT0_BYTES], several[NET_OUTPUT0_BYTES];

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 2, run, differ = 0;
    const void *inputs[1] = {input};
    void *outputs[2][1] = {{one}, {several}};
    double start, us[2] = {1e30, 1e30};
    unsigned state = 1;
    size_t i;
    pool *p = pool_new(threads);

    if (net_check_cpu() != 0 || p == NULL) {
        fprintf(stderr, "no %d threads, or a processor that lacks what the network was compiled for\n", threads);
        return 1;
    }
    for (run = 0; run < RUNS; run++) {
        for (i = 0; i < sizeof input; i++) {
            state = state * 1664525u + 1013904223u;
            input[i] = (unsigned char)(state >> 24);
        }
        start = now();
        if (net_run(inputs, outputs[0], arena) != 0)
            return 1;
        us[0] = now() - start < us[0] ? now() - start : us[0];
        start = now();
        if (net_run_parallel(inputs, outputs[1], arena, pool_for, p) != 0)
            return 1;
        us[1] = now() - start < us[1] ? now() - start : us[1];
        differ += memcmp(one, several, sizeof one) != 0;
    }
    pool_free(p);
    printf("one thread %.1f us, %d threads %.1f us; %d of %d results differ\n", us[0], threads, us[1], differ, RUNS);
    return differ != 0;
}
