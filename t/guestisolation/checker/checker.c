/* checker - what runs in test guests, and on the host beside them.
 *
 * checker check MNT LOG SECONDS SEED OID...
 *     looks at bigfiles as of many revisions through the C client and checks every byte, against LOG and
 *     against @at/. Prints what it did. Exit status: 0, 3 when the server is lost (an error or SIGBUS), 9
 *     for a wrong byte.
 * checker ignore MNT OID
 *     takes a base of its own and, some commits later, sets up a watch over it whose link it never reads, so that no
 *     pin is acknowledged; reads the base until an error comes, then touches the same page, which was mapped and
 *     not read. Prints both.
 * checker refused MNT OID BASE
 *     asks for a base watch over a base of another server, which must be refused.
 * checker hog MIB
 *     takes and gives back memory, until no more than MIB are available.
 *
 * A line of LOG is "TID f:b:n f:b:n ...": commit n wrote block b of file f, n 0: made a hole of it. Word i
 * of a block is n<<40 | f<<36 | b<<20 | i.
 */
#define _GNU_SOURCE
#include "wcfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 4, BLOCKS = 64, RECENT = 60, LOST = 3, WRONG = 9 };

struct rev { uint64_t tid, n; };

static struct { struct rev *revs; size_t len; } oracle[FILES][BLOCKS];
static uint64_t *tids;
static size_t ntids;
static FILE *log_file;
static const char *mnt;
static char **oids;
static uint64_t checks, pinned_checks, exact, resyncs, opens, drops, slowest, slow_open;

static void die(int status, const char *what, const char *why)
{
    printf("checker: %s: %s\n", what, why);
    exit(status);
}

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000) + ts.tv_nsec / 1000000;
}

static void took(uint64_t began, uint64_t *most)
{
    uint64_t ms = now_ms() - began;
    if (ms > *most)
        *most = ms;
}

static void *grow(void *p, size_t len, size_t size)
{
    if (len & (len - 1)) /* doubles at powers of two */
        return p;
    if (!(p = realloc(p, (len ? 2 * len : 1) * size)))
        die(1, "memory", "none left");
    return p;
}

static void take_line(char *line)
{
    char *save, *word = strtok_r(line, " ", &save);
    uint64_t tid = strtoull(word, NULL, 16);
    tids = grow(tids, ntids, sizeof *tids);
    tids[ntids++] = tid;
    while ((word = strtok_r(NULL, " ", &save))) {
        unsigned f, b;
        uint64_t n;
        if (sscanf(word, "%u:%u:%" SCNu64, &f, &b, &n) != 3 || f >= FILES || b >= BLOCKS)
            die(1, "log", word);
        oracle[f][b].revs = grow(oracle[f][b].revs, oracle[f][b].len, sizeof(struct rev));
        oracle[f][b].revs[oracle[f][b].len++] = (struct rev){tid, n};
    }
}

/* follow_log takes the lines that are complete. */
static void follow_log(void)
{
    static char line[8192];
    static size_t len;
    clearerr(log_file);
    for (int c; (c = getc(log_file)) != EOF;) {
        if (c != '\n') {
            if (len == sizeof line - 1)
                die(1, "log", "long line");
            line[len++] = c;
            continue;
        }
        line[len] = 0, len = 0;
        take_line(line);
    }
}

/* number of the commit whose data a block holds as of at, 0: a hole */
static uint64_t expect(unsigned f, unsigned b, uint64_t at)
{
    for (size_t i = oracle[f][b].len; i > 0; i--)
        if (oracle[f][b].revs[i - 1].tid <= at)
            return oracle[f][b].revs[i - 1].n;
    return 0;
}

static void check_size(wcfs_view *v, unsigned f)
{
    size_t want = 0;
    for (unsigned b = 0; b < BLOCKS; b++)
        if (expect(f, b, wcfs_at(v)))
            want = (b + 1) * wcfs_blksize(v);
    if (wcfs_size(v) != want) {
        printf("checker: WRONG SIZE: file %u @%016" PRIx64 ": %zu, want %zu\n", f, wcfs_at(v), wcfs_size(v), want);
        exit(WRONG);
    }
}

static void check_words(const volatile uint64_t *w, wcfs_view *v, unsigned f, unsigned b, const char *how)
{
    uint64_t n = expect(f, b, wcfs_at(v)), base = n << 40 | (uint64_t)f << 36 | (uint64_t)b << 20;
    for (size_t i = 0; i < wcfs_blksize(v) / 8; i++) {
        uint64_t got = w[i];
        if (got != (n ? base | i : 0)) {
            printf("checker: WRONG BYTES %s: file %u block %u @%016" PRIx64 ": word %zu is %" PRIx64
                   " (commit %" PRIu64 "), want commit %" PRIu64 ", pinned to %016" PRIx64 "\n",
                   how, f, b, wcfs_at(v), i, got, got >> 40, n, wcfs_pinned(v, b));
            exit(WRONG);
        }
    }
}

static void check(wcfs_view *v, unsigned f, unsigned b)
{
    static uint64_t copy[8192];
    char path[4096];
    size_t blksize = wcfs_blksize(v);
    const char *mem = (const char *)wcfs_data(v) + b * blksize;
    pinned_checks += wcfs_pinned(v, b) != 0;
    uint64_t began = now_ms();
    check_words((const volatile uint64_t *)mem, v, f, b, "in memory");
    took(began, &slowest);
    checks++;
    if (random() % 3 || blksize > sizeof copy)
        return;
    snprintf(path, sizeof path, "%s/@%016" PRIx64 "/bigfile/%s", mnt, wcfs_at(v), oids[f]);
    began = now_ms();
    int fd = open(path, O_RDONLY);
    if (fd < 0 || pread(fd, copy, blksize, b * blksize) != (ssize_t)blksize)
        die(LOST, path, strerror(errno));
    close(fd);
    took(began, &slowest);
    if (memcmp(copy, mem, blksize)) {
        printf("checker: WRONG BYTES: memory is not %s\n", path);
        exit(WRONG);
    }
    check_words(copy, v, f, b, "of @at");
    exact++;
}

static sigjmp_buf sigbus;
static volatile sig_atomic_t expected;

static void on_sigbus(int sig)
{
    (void)sig;
    if (expected)
        siglongjmp(sigbus, 1);
    static const char text[] = "checker: SIGBUS\n";
    if (write(1, text, sizeof text - 1) < 0)
        _exit(1);
    _exit(LOST);
}

/* one of the last commits from least on, 0: none */
static uint64_t some_at(uint64_t least)
{
    follow_log();
    size_t first = ntids > RECENT ? ntids - RECENT : 0;
    while (first < ntids && tids[first] < least)
        first++;
    return first < ntids ? tids[first + random() % (ntids - first)] : 0;
}

static uint64_t read_tid(const char *rel)
{
    char buf[32] = "", path[4096];
    snprintf(path, sizeof path, "%s/%s", mnt, rel);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || pread(fd, buf, sizeof buf - 1, 0) < 16)
        die(LOST, path, strerror(errno));
    close(fd);
    return strtoull(buf, NULL, 16);
}

static void drop(const char *dir, const char *oid)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/bigfile/%s", mnt, dir, oid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    drops++;
}

static void step(wcfs_view **view, unsigned f, uint64_t least)
{
    char err[WCFS_ERR], dir[32];
    wcfs_view *v = *view;
    uint64_t at, began = now_ms();
    if (!v) {
        if (!(at = some_at(least))) {
            usleep(1000);
            return;
        }
        if (!(*view = wcfs_open(mnt, strtoull(oids[f], NULL, 16), at, err)))
            die(LOST, "open", err);
        took(began, &slow_open);
        opens++;
        check_size(*view, f);
        return;
    }
    switch (random() % 16) {
    case 0:
        wcfs_close(v);
        *view = NULL;
        return;
    case 1: case 2: case 3:
        if (!(at = some_at(wcfs_at(v))))
            return;
        if (wcfs_resync(v, at, err))
            die(LOST, "resync", err);
        took(began, &slow_open);
        resyncs++;
        check_size(v, f);
        return;
    case 4:
        drop("head", oids[f]);
        snprintf(dir, sizeof dir, "base/%016" PRIx64, read_tid("head/base"));
        drop(dir, oids[f]);
        return;
    default:
        for (int i = 0; i < 4; i++)
            check(v, f, random() % (wcfs_size(v) / wcfs_blksize(v)));
    }
}

/* a machine that is busy gets the time it needs */
static int enough(void)
{
    return checks >= 60 && pinned_checks >= 5 && exact >= 10 && resyncs >= 4 && opens >= 3;
}

static int run_check(int argc, char **argv)
{
    if (argc < 7)
        die(2, "usage", "checker check MNT LOG SECONDS SEED OID...");
    mnt = argv[2], oids = argv + 6;
    unsigned nfiles = argc - 6;
    if (nfiles > FILES || !(log_file = fopen(argv[3], "r")))
        die(2, argv[3], "cannot be opened");
    srandom(atoi(argv[5]));
    uint64_t least = read_tid("head/base"), end = now_ms() + 1000 * atoi(argv[4]);
    wcfs_view *views[FILES] = {0};
    while (now_ms() < end || (!enough() && now_ms() < end + 90000)) {
        unsigned f = random() % nfiles;
        step(&views[f], f, least);
    }
    for (unsigned f = 0; f < nfiles; f++)
        wcfs_close(views[f]);
    printf("checks %" PRIu64 " pinned %" PRIu64 " exact %" PRIu64 " resyncs %" PRIu64 " opens %" PRIu64
           " drops %" PRIu64 " slowest-ms %" PRIu64 " slow-open-ms %" PRIu64 "\n",
           checks, pinned_checks, exact, resyncs, opens, drops, slowest, slow_open);
    return 0;
}

static int run_ignore(int argc, char **argv)
{
    char path[4096], line[128];
    static char buf[4096];
    if (argc != 4)
        die(2, "usage", "checker ignore MNT OID");
    mnt = argv[2];
    uint64_t base = read_tid("head/at"), at = base;
    for (int commits = 0; commits < 3; usleep(1000)) { /* then every block has changed */
        uint64_t was = at;
        commits += (at = read_tid("head/at")) != was;
    }
    uint64_t began = now_ms();
    snprintf(path, sizeof path, "%s/base/%016" PRIx64 "/bigfile/%s", mnt, base, argv[3]);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        die(1, path, strerror(errno));
    off_t size = lseek(fd, 0, SEEK_END);
    volatile char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    snprintf(path, sizeof path, "%s/head/watch9", mnt);
    int link = open(path, O_RDWR);
    int n = snprintf(line, sizeof line, "1 watch %s @%016" PRIx64 " base @%016" PRIx64 "\n", argv[3], at, base);
    if (map == MAP_FAILED || link < 0 || pwrite(link, line, n, 0) != n)
        die(1, path, strerror(errno));
    off_t off = 0;
    for (;; off = (off + 4096) % size) {
        if (pread(fd, buf, sizeof buf, off) < 0)
            break;
        if (now_ms() > began + 120000)
            die(1, "ignore", "no read has failed");
    }
    printf("read: %s after %" PRIu64 " ms at %jd of base %016" PRIx64 "\n", strerror(errno), now_ms() - began, (intmax_t)off, base);
    expected = 1;
    if (!sigsetjmp(sigbus, 1)) {
        printf("memory: %d\n", map[off]);
        return 1;
    }
    printf("memory: SIGBUS\n");
    return 0;
}

static int run_refused(int argc, char **argv)
{
    char path[4096], line[128];
    static char buf[4096];
    if (argc != 5)
        die(2, "usage", "checker refused MNT OID BASE");
    mnt = argv[2];
    snprintf(path, sizeof path, "%s/base/%s/bigfile/%s", mnt, argv[4], argv[3]);
    if (open(path, O_RDONLY) >= 0 || errno != ENOENT)
        die(1, path, "is there");
    snprintf(path, sizeof path, "%s/head/bigfile/%s", mnt, argv[3]);
    if (open(path, O_RDONLY) < 0) /* the server is to know the file */
        die(1, path, strerror(errno));
    snprintf(path, sizeof path, "%s/head/watch9", mnt);
    int link = open(path, O_RDWR);
    int n = snprintf(line, sizeof line, "1 watch %s @%016" PRIx64 " base @%s\n", argv[3], read_tid("head/at"), argv[4]);
    if (link < 0 || pwrite(link, line, n, 0) != n)
        die(1, path, strerror(errno));
    for (;;) { /* heartbeats are blank lines */
        char *p;
        if (pread(link, buf, sizeof buf - 1, 0) <= 0)
            die(1, path, strerror(errno));
        for (p = buf; *p == '\n'; p++)
            ;
        if (*p) {
            *strchrnul(p, '\n') = 0;
            printf("%s\n", p);
            return strncmp(p, "1 error", 7) != 0;
        }
    }
}

static void run_hog(int argc, char **argv)
{
    long leave = argc == 3 ? atol(argv[2]) : 0;
    if (leave <= 0)
        die(2, "usage", "checker hog MIB");
    for (;;) {
        static char *held[4096];
        size_t n = 0;
        long kib = 0;
        char line[256];
        do {
            FILE *f = fopen("/proc/meminfo", "r");
            while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %ld kB", &kib) != 1)
                ;
            if (f)
                fclose(f);
            if (kib <= leave << 10 || n == 4096)
                break;
            if (!(held[n] = malloc(1 << 20)))
                break;
            memset(held[n++], 1, 1 << 20);
        } while (1);
        usleep(500000);
        while (n > 0)
            free(held[--n]);
        usleep(200000);
    }
}

int main(int argc, char **argv)
{
    struct sigaction sa = {.sa_handler = on_sigbus};
    sigaction(SIGBUS, &sa, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && !strcmp(argv[1], "check"))
        return run_check(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "ignore"))
        return run_ignore(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "refused"))
        return run_refused(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "hog"))
        run_hog(argc, argv);
    die(2, "usage", "checker check|ignore|hog ...");
}
