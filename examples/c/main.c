/* Recognises handwritten digits with an integer-only network.
 *
 *   lowbit compile tests/models/digits.onnx --data tests/models/digits.toml --bits 8 -o target/demo
 *   make -C examples/c && examples/c/digits
 */
#include <stdio.h>
#include <string.h>

#include "digits.h"
#include "samples.h"

#if defined(__GNUC__)
static unsigned char arena[DIGITS_ARENA_BYTES] __attribute__((aligned(DIGITS_ARENA_ALIGN)));
#else
#error "give the arena an alignment of DIGITS_ARENA_ALIGN in your compiler's way"
#endif

static void show(const unsigned char *pixels)
{
    int y, x;
    for (y = 0; y < 8; y++) {
        for (x = 0; x < 8; x++) {
            static const char shades[] = " .:-=+*#@";
            int shade = pixels[8 * y + x] / 2;
            putchar(shades[shade]);
            putchar(shades[shade]);
        }
        putchar('\n');
    }
}

/* The digit in 64 pixels of 0..16, or -1. */
static int recognise(const unsigned char *pixels)
{
    float real[DIGITS_INPUT0_ELEMENTS];
    DIGITS_INPUT0_TYPE codes[DIGITS_INPUT0_ELEMENTS];
    DIGITS_OUTPUT0_TYPE logits[DIGITS_OUTPUT0_ELEMENTS];
    const void *inputs[DIGITS_INPUTS];
    void *outputs[DIGITS_OUTPUTS];
    int i, best = 0;

    for (i = 0; i < DIGITS_INPUT0_ELEMENTS; i++)
        real[i] = (float)pixels[i] / 16.0f;
    digits_quantize_input0(real, codes);
    inputs[0] = codes;
    outputs[0] = logits;
    if (digits_run(inputs, outputs, arena) != 0)
        return -1;
    for (i = 1; i < DIGITS_OUTPUT0_ELEMENTS; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

int main(int argc, char **argv)
{
    int brief = argc > 1 && strcmp(argv[1], "--brief") == 0;
    int i, right = 0;

    if (digits_check_cpu() != 0) {
        fprintf(stderr, "this processor lacks what the network was compiled for\n");
        return 1;
    }
    for (i = 0; i < SAMPLES; i++) {
        int digit = recognise(samples[i]);
        if (digit < 0) {
            fprintf(stderr, "the network refused sample %d\n", i);
            return 1;
        }
        if (i < (brief ? 1 : 5)) {
            show(samples[i]);
            printf("is a %d; the network says %d\n", labels[i], digit);
        }
        right += digit == labels[i];
    }
    printf("%d of %d right\n", right, SAMPLES);
    return right * 100 >= SAMPLES * 90 ? 0 : 1;
}
