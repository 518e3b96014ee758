/* link.h - what all probes do: reading numbers from the server's files, and base watches whose pins are served. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BLK = 16384 };

static const char *mnt, *oid;
static uint64_t at, base;

static void die(const char *what)
{
    printf("probes: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000) + ts.tv_nsec / 1000;
}

static uint64_t ms_since(uint64_t us) { return (now_us() - us) / 1000; }

static int must_open(const char *path, int flags)
{
    int fd = open(path, flags);
    if (fd < 0)
        die(path);
    return fd;
}

static int open_below(const char *format, uint64_t tid)
{
    char rel[128], path[512];
    snprintf(rel, sizeof rel, format, tid, oid);
    snprintf(path, sizeof path, "%s/%s", mnt, rel);
    return must_open(path, O_RDONLY);
}

static uint64_t number_in(const char *rel, const char *after, int radix)
{
    char path[512], buf[PAGE] = "";
    snprintf(path, sizeof path, "%s/%s", mnt, rel);
    int fd = must_open(path, O_RDONLY);
    if (pread(fd, buf, sizeof buf - 1, 0) <= 0)
        die(path);
    close(fd);
    const char *p = strstr(buf, after);
    if (!p)
        die(after);
    return strtoull(p + strlen(after), NULL, radix);
}

static void take_tids(void)
{
    at = number_in("head/at", "", 16), base = number_in("head/base", "", 16);
    if (at <= base)
        die("nothing was committed since the base");
}

/* a link, and what its pins are answered by */
struct link {
    int fd;
    char *buf;               /* a page, aligned */
    const char *next;        /* lines in it that were not taken */
    void *over;              /* where the base is mapped; NULL: pins are acknowledged only */
    unsigned late_ms;        /* how long to wait before that */
    unsigned pins;
    uint64_t open_us, anon_us, fixed_us; /* the longest of each */
};

static void link_open(struct link *l, const char *watch)
{
    memset(l, 0, sizeof *l);
    l->fd = must_open(watch, O_RDWR);
    l->buf = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    l->next = l->buf;
}

static void link_close(struct link *l)
{
    close(l->fd);
    munmap(l->buf, 2 * PAGE);
}

static void link_write(struct link *l, const char *line)
{
    if (pwrite(l->fd, line, strlen(line), 0) != (ssize_t)strlen(line))
        die(line);
}

/* link_line returns the next line that is not blank, NULL at the end of the link */
static char *link_line(struct link *l, char line[256])
{
    for (;;) {
        while (*l->next == '\n')
            l->next++;
        const char *end = strchr(l->next, '\n');
        if (end) {
            snprintf(line, 256, "%.*s", (int)(end - l->next), l->next);
            l->next = end;
            return line;
        }
        ssize_t n = pread(l->fd, l->buf, PAGE, 0);
        if (n <= 0)
            return NULL;
        l->buf[n] = 0, l->next = l->buf;
    }
}

static void most(uint64_t *max, uint64_t began)
{
    uint64_t us = now_us() - began;
    if (us > *max)
        *max = us;
}

/* pin maps what a pin asks for, in place, and acknowledges; it returns 0 if the line is no pin */
static int pin(struct link *l, const char *line)
{
    unsigned stream;
    uint64_t blk, rev;
    char answer[64];
    if (sscanf(line, "%u pin %*s #%" SCNu64 " @%" SCNx64, &stream, &blk, &rev) != 3)
        return 0;
    usleep(l->late_ms * 1000);
    if (l->over) {
        uint64_t began = now_us();
        int fd = open_below("@%016" PRIx64 "/bigfile/%s", rev);
        most(&l->open_us, began);
        began = now_us();
        void *other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *(volatile char *)other = 1;
        munmap(other, PAGE);
        most(&l->anon_us, began);
        began = now_us();
        if (mmap((char *)l->over + blk * BLK, BLK, PROT_READ, MAP_SHARED | MAP_FIXED, fd, blk * BLK) == MAP_FAILED)
            die("MAP_FIXED");
        most(&l->fixed_us, began);
        close(fd);
    }
    l->pins++;
    snprintf(answer, sizeof answer, "%u ack\n", stream);
    link_write(l, answer);
    return 1;
}

/* watch sets the watch up; pins come meanwhile. It ends the program when that is refused. */
static void watch(struct link *l)
{
    char line[256];
    snprintf(line, sizeof line, "1 watch %s @%016" PRIx64 " base @%016" PRIx64 "\n", oid, at, base);
    link_write(l, line);
    while (link_line(l, line)) {
        if (!strcmp(line, "1 ok"))
            return;
        if (!pin(l, line)) {
            printf("%s\n", line);
            exit(1);
        }
    }
    die("the link has ended");
}

static void *pinner(void *arg)
{
    char line[256];
    while (link_line(arg, line))
        if (!pin(arg, line))
            die(line);
    return NULL;
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    if (pthread_create(&t, NULL, fn, arg))
        die("pthread_create");
    return t;
}

static const char *watch_path(void)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/head/watch9", mnt);
    return path;
}
