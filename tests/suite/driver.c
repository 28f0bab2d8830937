/* Maps samples on standard input to results on standard output, through buffers that are aligned to nothing and have
 * guards around them. */
#include <stdio.h>
#include <string.h>

#include "digits.h"

enum { GUARD = 64 };

static unsigned char arena[DIGITS_ARENA_BYTES + GUARD] __attribute__((aligned(DIGITS_ARENA_ALIGN)));
static unsigned char in[DIGITS_INPUT0_BYTES + 1];
static unsigned char out[GUARD + 1 + DIGITS_OUTPUT0_BYTES + GUARD];

static int intact(const unsigned char *bytes, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (bytes[i] != 0xa5)
            return 0;
    return 1;
}

int main(void)
{
    const void *const inputs[DIGITS_INPUTS] = {in + 1};
    unsigned char *result = out + GUARD + 1;
    void *const outputs[DIGITS_OUTPUTS] = {result};
    unsigned char before[DIGITS_INPUT0_BYTES];

    if (digits_check_cpu() != 0)
        return 10;
    if (digits_run(inputs, outputs, arena + 1) == 0 || digits_run(inputs, outputs, NULL) == 0)
        return 11;
    while (fread(in + 1, 1, DIGITS_INPUT0_BYTES, stdin) == DIGITS_INPUT0_BYTES) {
        memset(out, 0xa5, sizeof out);
        memset(arena, 0xa5, sizeof arena);
        memcpy(before, in + 1, sizeof before);
        if (digits_run(inputs, outputs, arena) != 0)
            return 12;
        if (!intact(out, GUARD + 1) || !intact(result + DIGITS_OUTPUT0_BYTES, GUARD))
            return 13;
        if (!intact(arena + DIGITS_ARENA_BYTES, GUARD) || memcmp(before, in + 1, sizeof before) != 0)
            return 14;
        fwrite(result, 1, DIGITS_OUTPUT0_BYTES, stdout);
    }
    return 0;
}
