/* testpins.c - the table of pins of wcfs.c against a plain array, with keys that collide.
 *
 * usage: testpins SEED
 */
#include "wcfs.c"

#define KEYS 4000
#define STEPS 100000

int main(int argc, char **argv)
{
    static uint64_t want[KEYS], key[KEYS];
    wcfs_view v = {.link = -1};
    uint64_t x = argc > 1 ? strtoull(argv[1], NULL, 10) | 1 : 1, n = 0;
    for (int i = 0; i < KEYS; i++) /* every other key falls into one of few places */
        key[i] = i % 2 ? (uint64_t)i << 40 : (uint64_t)i;
    for (int step = 0; step < STEPS; step++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        int busy = step / 20000 % 2; /* fill, empty, and so on */
        int i = x % KEYS;
        if (x >> 32 & (busy ? 3 : 1)) {
            n += !want[i];
            want[i] = x | 1;
            if (set_pin(&v, key[i], want[i]))
                return 1;
        } else {
            n -= !!want[i];
            want[i] = 0;
            drop_pin(&v, key[i]);
        }
        int j = (x >> 16) % KEYS;
        if (pinned(&v, key[j]) != want[j] || v.npins != n) {
            printf("step %d: key %d\n", step, j);
            return 1;
        }
        if (step % 5000)
            continue;
        for (j = 0; j < KEYS; j++)
            if (pinned(&v, key[j]) != want[j]) {
                printf("step %d: key %d\n", step, j);
                return 1;
            }
    }
    return 0;
}
