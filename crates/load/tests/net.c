/* What an object may hold: constants, tables of addresses, a jump table, calls, functions that others could replace. */
#include <stdint.h>

const int32_t net_table[8] = {3, 1, 4, 1, 5, 9, 2, 6}; /* global, so reached through the table of addresses */
static const int32_t primes[4] = {2, 3, 5, 7};
static const int32_t *const tables[2] = {net_table, primes};

__attribute__((noinline)) int32_t net_scale(int32_t x) { return x * 3; }

__attribute__((noinline)) static int32_t choose(int32_t which, int32_t x) {
    switch (which) {
    case 0: return net_scale(x) + 7;
    case 1: return x * x - 11;
    case 2: return x / 5;
    case 3: return net_scale(net_scale(x));
    case 4: return (x << 3) ^ 0x55;
    case 5: return -x;
    case 6: return x % 13 + 1;
    default: return net_table[which & 7];
    }
}

int net_check_cpu(void) { return 0; }

int net_step(int call, const void *const *inputs, void *const *outputs, void *arena) {
    const uint8_t *x = inputs[0];
    int32_t *memory = arena;
    if (call == 0) {
        for (int i = 0; i < 16; i++) memory[i] = choose(x[i] & 15, x[i]) + tables[x[i] & 1][i & 3];
        return 0;
    }
    if (call == 1) {
        uint8_t *y = outputs[0];
        for (int i = 0; i < 64; i++) y[i] = ((const uint8_t *)memory)[i];
        return 0;
    }
    return 3;
}

int net_run(const void *const *inputs, void *const *outputs, void *arena) {
    if (!inputs[0] || !outputs[0] || !arena) return 1;
    net_step(0, inputs, outputs, arena);
    return net_step(1, inputs, outputs, arena);
}
