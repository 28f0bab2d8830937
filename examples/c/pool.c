#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Looks before a thread sleeps: tens of microseconds, longer than a layer takes to come after another. */
#define SPINS 20000

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t *threads;
    int count;
    void (*task)(void *argument, int part);
    void *argument;
    int parts;
    /* Number of the work; a thread that sees a new one takes parts of it. */
    atomic_uint round;
    /* The next part that nobody has taken, parts that are done, and threads that may still look. */
    atomic_int next, done, inside;
    atomic_int stop;
};

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(pool *p)
{
    int part;
    while ((part = atomic_fetch_add(&p->next, 1)) < p->parts) {
        p->task(p->argument, part);
        atomic_fetch_add(&p->done, 1);
    }
}

/* Waits for another round than `seen`, or for the end. */
static unsigned another(pool *p, unsigned seen)
{
    int i;
    unsigned now;
    for (i = 0; i < SPINS; i++) {
        now = atomic_load(&p->round);
        if (now != seen || atomic_load(&p->stop))
            return now;
        pause_briefly();
    }
    pthread_mutex_lock(&p->lock);
    while ((now = atomic_load(&p->round)) == seen && !atomic_load(&p->stop))
        pthread_cond_wait(&p->wake, &p->lock);
    pthread_mutex_unlock(&p->lock);
    return now;
}

static void *helper(void *argument)
{
    pool *p = argument;
    unsigned seen = 0;
    for (;;) {
        seen = another(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        work(p);
        atomic_fetch_sub(&p->inside, 1);
    }
}

pool *pool_new(int threads)
{
    pool *p = calloc(1, sizeof *p);
    if (p == NULL || threads < 1) {
        free(p);
        return NULL;
    }
    p->threads = calloc((size_t)threads, sizeof *p->threads);
    if (p->threads == NULL || pthread_mutex_init(&p->lock, NULL) != 0 || pthread_cond_init(&p->wake, NULL) != 0) {
        free(p->threads);
        free(p);
        return NULL;
    }
    while (p->count < threads - 1) {
        if (pthread_create(&p->threads[p->count], NULL, helper, p) != 0) {
            pool_free(p);
            return NULL;
        }
        p->count++;
    }
    return p;
}

void pool_for(void *context, void (*task)(void *argument, int part), void *argument, int parts)
{
    pool *p = context;
    int spins = 0;
    p->task = task;
    p->argument = argument;
    p->parts = parts;
    atomic_store(&p->next, 0);
    atomic_store(&p->done, 0);
    atomic_store(&p->inside, p->count);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->round, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    work(p);
    /* a thread that has not looked yet must not meet the next work half set up */
    while (atomic_load(&p->done) < parts || atomic_load(&p->inside) > 0) {
        if (++spins < SPINS)
            pause_briefly();
        else
            sched_yield(); /* more threads than cores */
    }
}

void pool_free(pool *p)
{
    int i;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (i = 0; i < p->count; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->threads);
    free(p);
}
