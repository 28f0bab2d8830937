/* A small pool of threads for NAME_run_parallel:
 *
 *   pool *p = pool_new(2);
 *   NAME_run_parallel(inputs, outputs, arena, pool_for, p);
 *   pool_free(p);
 *
 * One thread may use a pool at a time. It takes part in the work; the others wait by spinning for a moment, then asleep.
 */
#ifndef POOL_H
#define POOL_H

typedef struct pool pool;

/* A pool of as many threads, the caller among them; NULL where they cannot be started. */
pool *pool_new(int threads);
void pool_free(pool *p);

/* Calls task(argument, part) for every part from 0 to parts - 1 and waits for all of them; context is the pool. */
void pool_for(void *context, void (*task)(void *argument, int part), void *argument, int parts);

#endif
