/* checker - looks at bigfiles as of many revisions and checks every byte.
 *
 * usage: checker MNT LOG SECONDS SEED LAST OID...
 *
 * LOG is what writer.py says of its commits. Views are opened at one of its LAST tids, move on to later ones,
 * and are opened anew; blocks are read through the mapping. At the end one line with what was done is
 * printed. A wrong byte, an error, or SIGBUS is exit status 1 and a line on stderr.
 */
#define _GNU_SOURCE
#include "wcfs.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FILES 8
#define BLOCKS 64

struct rev { uint64_t tid, n; };

/* what the writer's log says: revisions of each block, ascending */
static struct { struct rev *revs; size_t len; } oracle[FILES][BLOCKS];
static uint64_t *tids;
static size_t ntids;
static FILE *log_file;
static size_t last;

static uint64_t checks, bytes, pinned_checks, kept, resyncs, opens, drops;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "checker: %s: %s\n", what, why);
    exit(1);
}

static void *grow(void *p, size_t len, size_t size)
{
    if (len & (len - 1)) /* doubles at powers of two */
        return p;
    p = realloc(p, (len ? 2 * len : 1) * size);
    if (!p)
        die("memory", "none");
    return p;
}

/* follow_log takes the lines that are complete. */
static void follow_log(void)
{
    static char line[4096];
    static size_t len;
    clearerr(log_file);
    for (int c; (c = getc(log_file)) != EOF;) {
        if (c != '\n') {
            if (len == sizeof line - 1)
                die("log", "long line");
            line[len++] = c;
            continue;
        }
        line[len] = 0, len = 0;
        char *save, *word = strtok_r(line, " ", &save);
        uint64_t tid = strtoull(word, NULL, 16);
        tids = grow(tids, ntids, sizeof *tids);
        tids[ntids++] = tid;
        while ((word = strtok_r(NULL, " ", &save))) {
            unsigned f, b;
            uint64_t n;
            if (sscanf(word, "%u:%u:%" SCNu64, &f, &b, &n) != 3 || f >= FILES || b >= BLOCKS)
                die("log", word);
            oracle[f][b].revs = grow(oracle[f][b].revs, oracle[f][b].len, sizeof(struct rev));
            oracle[f][b].revs[oracle[f][b].len++] = (struct rev){tid, n};
        }
    }
}

/* number of the commit whose data a block holds as of at: 0 a hole */
static uint64_t expect(unsigned f, unsigned b, uint64_t at)
{
    for (size_t i = oracle[f][b].len; i > 0; i--)
        if (oracle[f][b].revs[i - 1].tid <= at)
            return oracle[f][b].revs[i - 1].n;
    return 0;
}

static size_t expect_blocks(unsigned f, uint64_t at)
{
    for (unsigned b = BLOCKS; b > 0; b--)
        if (expect(f, b - 1, at))
            return b;
    return 0;
}

static int resident(const char *mem, size_t len)
{
    unsigned char vec[64];
    size_t n = len / 4096;
    if (n > sizeof vec || mincore((void *)mem, len, vec))
        return 0;
    for (size_t i = 0; i < n; i++)
        if (!(vec[i] & 1))
            return 0;
    return 1;
}

static void check(wcfs_view *v, unsigned f, unsigned b)
{
    uint64_t at = wcfs_at(v), n = expect(f, b, at), base = ((n * 16 + f) * 1024 + b) * 65536;
    size_t blksize = wcfs_blksize(v);
    const char *mem = (const char *)wcfs_data(v) + b * blksize;
    int pinned = wcfs_pinned(v, b) != 0;
    if (pinned) {
        pinned_checks++;
        kept += resident(mem, blksize);
    }
    const volatile uint64_t *w = (const volatile uint64_t *)mem;
    for (size_t i = 0; i < blksize / 8; i++) {
        uint64_t got = w[i], want = n ? base + i : 0;
        if (got != want) {
            fprintf(stderr, "checker: WRONG BYTES: file %u block %u @%016" PRIx64 ": word %zu is %" PRIx64
                    ", want %" PRIx64 " (commit %" PRIu64 ", got %" PRIu64 "), pinned to %016" PRIx64 "\n",
                    f, b, at, i, got, want, n, got / 65536 / 1024 / 16, wcfs_pinned(v, b));
            exit(1);
        }
    }
    checks++, bytes += blksize;
}

static void on_sigbus(int sig, siginfo_t *info, void *ctx)
{
    (void)sig, (void)ctx;
    dprintf(2, "checker: SIGBUS, code %d, pid %d, at %p\n", info->si_code, (int)info->si_pid, info->si_addr);
    _exit(1);
}

static uint64_t at_from(uint64_t least)
{
    follow_log();
    size_t first = ntids > last ? ntids - last : 0;
    while (first < ntids && tids[first] < least)
        first++;
    return first < ntids ? tids[first + random() % (ntids - first)] : 0;
}

static void check_size(wcfs_view *v, unsigned f)
{
    size_t want = expect_blocks(f, wcfs_at(v)) * wcfs_blksize(v);
    if (wcfs_size(v) != want) {
        fprintf(stderr, "checker: file %u @%016" PRIx64 ": size %zu, want %zu\n", f, wcfs_at(v), wcfs_size(v), want);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc < 7)
        die("usage", "checker MNT LOG SECONDS SEED LAST OID...");
    const char *mnt = argv[1];
    char err[WCFS_ERR];
    unsigned nfiles = argc - 6;
    if (!(log_file = fopen(argv[2], "r")))
        die(argv[2], "cannot open");
    time_t end = time(NULL) + atoi(argv[3]);
    srandom(atoi(argv[4]));
    last = atoi(argv[5]);
    struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &sa, NULL);

    wcfs_view *views[FILES] = {0};
    uint64_t start = 0;
    char head[32] = "", path[4096];
    snprintf(path, sizeof path, "%s/head/at", mnt);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, head, sizeof head - 1) != 16)
        die(path, "cannot read");
    close(fd);
    start = strtoull(head, NULL, 16); /* not before the server's start */

    /* a busy machine gets more time to do what makes it a test */
    while (time(NULL) < end || (checks < 16 && time(NULL) < end + 40)) {
        unsigned f = random() % nfiles;
        wcfs_view *v = views[f];
        if (!v) {
            uint64_t at = at_from(start);
            if (!at) {
                usleep(1000);
                continue;
            }
            if (!(views[f] = wcfs_open(mnt, strtoull(argv[6 + f], NULL, 16), at, err)))
                die("open", err);
            opens++;
            check_size(views[f], f);
            continue;
        }
        switch (random() % 20) {
        case 0:
            wcfs_close(v);
            views[f] = NULL;
            break;
        case 1: case 2: case 3: case 4: {
            uint64_t at = at_from(wcfs_at(v));
            if (at && wcfs_resync(v, at, err))
                die("resync", err);
            resyncs++;
            check_size(v, f);
            break;
        }
        case 5: case 6:
            snprintf(path, sizeof path, "%s/head/bigfile/%s", mnt, argv[6 + f]);
            if ((fd = open(path, O_RDONLY)) >= 0) {
                posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
                close(fd);
            }
            drops++;
            break;
        default:
            for (int i = 0; i < 4; i++)
                check(v, f, random() % (wcfs_size(v) / wcfs_blksize(v)));
        }
    }
    for (unsigned f = 0; f < nfiles; f++)
        wcfs_close(views[f]);
    printf("checks %" PRIu64 " bytes %" PRIu64 " pinned %" PRIu64 " kept %" PRIu64 " resyncs %" PRIu64 " opens %" PRIu64 " drops %" PRIu64 "\n",
           checks, bytes, pinned_checks, kept, resyncs, opens, drops);
    return 0;
}
