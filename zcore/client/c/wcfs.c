/* wcfs.c - see wcfs.h.
 *
 * A view has one watch link. The pinner thread reads it, re-maps blocks and acknowledges; it never
 * touches mapped memory, so a fault that waits for it cannot stop it. It blocks all signals.
 *
 * v->mu guards what both threads use. It is held over mmap, open and fstat of files that never wait
 * for pins, never over an access to mapped memory or a read of the shared file.
 *
 * Why wcfs_read is exact: the server shows newer content of a block only after our acknowledgement, so
 * a block that is not pinned after it was read had the content of our revision.
 */
#define _GNU_SOURCE
#include "wcfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define HASH 0x9e3779b97f4a7c15u
#define LINE 4096           /* v9fs wants at most a page, aligned */
#define WAIT_HEAD 30        /* seconds */

/* Lookups and reads over FUSE answer EINTR to any signal that the program handles. */
#define RETRY(call) ({ __typeof__(call) r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_; })

struct pin {
    uint64_t blk, rev;      /* rev 0: free */
};

struct wcfs_view {
    char *mnt;
    uint64_t oid;
    bool base_mode;         /* map base/<base>/ instead of head/ */
    size_t blksize;         /* bytes */
    pid_t owner;            /* a forked child has no pinner */
    pthread_t pinner;
    bool running;           /* pinner was started and not joined */
    char *line;             /* pinner's buffer, page-aligned */

    pthread_mutex_t mu;
    pthread_cond_t replied;

    /* all guarded by mu */
    int link;               /* head/watch, or watch9 */
    int shared;             /* the file that is mapped where nothing is pinned */
    uint64_t at, base;
    size_t size;            /* bytes */
    size_t shared_end;      /* where the shared file ends, whole blocks: from there on @at is shown */
    char *mem;              /* NULL: nothing is mapped */
    size_t reserved;        /* bytes at mem */
    struct pin *pins;       /* open hash table by blk */
    size_t npins, cap;
    bool leaving;           /* the end of the link is our own doing */
    bool lost;
    char why[WCFS_ERR];
    uint64_t stream;        /* of the request under way, 0 if none */
    char reply[WCFS_ERR];
    bool have_reply;
};

static int fail(char *err, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err, WCFS_ERR, fmt, ap);
        va_end(ap);
    }
    return -1;
}

/* path of a file below the mount; NULL when out of memory. */
static char *path(const char *mnt, const char *fmt, ...)
{
    char tail[128], *p = NULL;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(tail, sizeof tail, fmt, ap);
    va_end(ap);
    return asprintf(&p, "%s/%s", mnt, tail) < 0 ? NULL : p;
}

static int open_below(const char *mnt, const char *rel, int flags, char *err)
{
    char *p = path(mnt, "%s", rel);
    if (!p)
        return fail(err, "out of memory");
    int fd = RETRY(open(p, flags | O_CLOEXEC)), e = errno;
    if (fd < 0)
        fail(err, "open %s: %s%s", p, strerror(e), e == EINVAL ? " (there is no such ZBigFile)" : "");
    free(p);
    errno = e;
    return fd;
}

static int open_rev(wcfs_view *v, uint64_t rev, char *err)
{
    char rel[64];
    snprintf(rel, sizeof rel, "@%016" PRIx64 "/bigfile/%016" PRIx64, rev, v->oid);
    return open_below(v->mnt, rel, O_RDONLY, err);
}

/* read_number reads a small file that holds a number of so many digits, 0: any. */
static int read_number(const char *mnt, const char *rel, int base, int digits, uint64_t *n, char *err)
{
    char buf[32] = "", *end;
    int fd = open_below(mnt, rel, O_RDONLY, err);
    if (fd < 0)
        return -1;
    ssize_t r = RETRY(pread(fd, buf, sizeof buf - 1, 0));
    int e = errno;
    close(fd);
    if (r < 0)
        return fail(err, "read %s/%s: %s", mnt, rel, strerror(e));
    *n = strtoull(buf, &end, base);
    if (end == buf || (digits && end - buf != digits) || (*end && *end != '\n'))
        return fail(err, "%s/%s does not hold what it should: is that a wcfs?", mnt, rel);
    return 0;
}

static int read_tid(const char *mnt, const char *rel, uint64_t *tid, char *err)
{
    return read_number(mnt, rel, 16, 16, tid, err);
}

/* wait_head makes the newest transaction of WCFS_HEAD, and else waits until the server has come to at. */
static int wait_head(const char *mnt, uint64_t *at, char *err)
{
    struct timespec pause = {0, 1000000}, now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += WAIT_HEAD;
    for (;;) {
        uint64_t head;
        if (read_tid(mnt, "head/at", &head, err))
            return -1;
        if (*at == WCFS_HEAD)
            *at = head;
        if (*at <= head)
            return 0;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > end.tv_sec)
            return fail(err, "@%016" PRIx64 " has not come: head is @%016" PRIx64, *at, head);
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < 50000000)
            pause.tv_nsec *= 2;
    }
}

static void lose(wcfs_view *v, const char *fmt, ...);

/* ---- pins; mu must be held ---- */

static struct pin *find_pin(wcfs_view *v, uint64_t blk)
{
    if (!v->cap)
        return NULL;
    size_t i = blk * HASH & (v->cap - 1);
    while (v->pins[i].rev && v->pins[i].blk != blk)
        i = (i + 1) & (v->cap - 1);
    return &v->pins[i];
}

static uint64_t pinned(wcfs_view *v, uint64_t blk)
{
    struct pin *p = find_pin(v, blk);
    return p ? p->rev : 0;
}

static int rehash(wcfs_view *v, size_t cap)
{
    struct pin *old = v->pins;
    size_t n = v->cap;
    struct pin *pins = calloc(cap, sizeof *pins);
    if (!pins)
        return -1;
    v->pins = pins, v->cap = cap;
    for (size_t i = 0; i < n; i++)
        if (old[i].rev)
            *find_pin(v, old[i].blk) = old[i];
    free(old);
    return 0;
}

static int set_pin(wcfs_view *v, uint64_t blk, uint64_t rev)
{
    if (2 * (v->npins + 1) > v->cap && rehash(v, v->cap ? 2 * v->cap : 64))
        return -1;
    struct pin *p = find_pin(v, blk);
    if (!p->rev)
        v->npins++;
    p->blk = blk, p->rev = rev;
    return 0;
}

static void drop_pin(wcfs_view *v, uint64_t blk)
{
    struct pin *p = find_pin(v, blk);
    if (!p || !p->rev)
        return;
    v->npins--;
    size_t mask = v->cap - 1, hole = p - v->pins;
    p->rev = 0;
    for (size_t i = (hole + 1) & mask; v->pins[i].rev; i = (i + 1) & mask) {
        size_t home = v->pins[i].blk * HASH & mask; /* move back what is found no more over the hole */
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            v->pins[hole] = v->pins[i];
            v->pins[i].rev = 0;
            hole = i;
        }
    }
}

/* ---- mapping; mu must be held ---- */

/* place maps there. The memory is no business of a forked child, who has no pinner; mmap alone would
 * leave a moment in which a fork takes it along, so the range comes from elsewhere. */
static int place(wcfs_view *v, size_t off, size_t len, int flags, int fd)
{
    void *p = mmap(NULL, len, PROT_READ, flags, fd, fd < 0 ? 0 : off);
    if (p == MAP_FAILED)
        return -1;
    if (madvise(p, len, MADV_DONTFORK) ||
        mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, v->mem + off) == MAP_FAILED) {
        int e = errno;
        munmap(p, len);
        errno = e;
        return -1;
    }
    return 0;
}

/* map_rev maps [off, off+len) of the file as of a revision, and zeros past its end. */
static int map_rev(wcfs_view *v, uint64_t rev, size_t off, size_t len)
{
    struct stat st;
    int fd = open_rev(v, rev, NULL);
    if (fd < 0)
        return -1;
    int bad = RETRY(fstat(fd, &st));
    size_t have = bad || (size_t)st.st_size <= off ? 0 : (size_t)st.st_size - off;
    if (have > len)
        have = len;
    if (!bad && have)
        bad = place(v, off, have, MAP_SHARED, fd);
    close(fd);
    if (!bad && len > have)
        bad = place(v, off + have, len - have, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    return bad;
}

/* map_shared maps [off, off+len) of the shared file, as far as that reaches, and of @at. */
static int map_shared(wcfs_view *v, size_t off, size_t len)
{
    struct stat st;
    if (RETRY(fstat(v->shared, &st)))
        return -1;
    if (v->shared_end > (size_t)st.st_size) /* it has become shorter */
        v->shared_end = st.st_size - st.st_size % v->blksize;
    size_t have = v->shared_end > off ? v->shared_end - off : 0;
    if (have > len)
        have = len;
    if (have && place(v, off, have, MAP_SHARED, v->shared))
        return -1;
    return len > have ? map_rev(v, v->at, off + have, len - have) : 0;
}

/* map_blk maps one block as it is to be shown. */
static int map_blk(wcfs_view *v, uint64_t blk)
{
    size_t off = blk * v->blksize;
    if (v->lost || !v->mem || blk >= v->size / v->blksize)
        return 0; /* not shown; remembered for when the view grows */
    uint64_t rev = pinned(v, blk);
    return rev ? map_rev(v, rev, off, v->blksize) : map_shared(v, off, v->blksize);
}

/* map_from maps everything from off on anew: the shared file and the pinned blocks. */
static int map_from(wcfs_view *v, size_t off)
{
    if (!v->mem || off >= v->size)
        return 0;
    if (map_shared(v, off, v->size - off))
        return -1;
    for (size_t i = 0; i < v->cap; i++)
        if (v->pins[i].rev && v->pins[i].blk >= off / v->blksize && map_blk(v, v->pins[i].blk))
            return -1;
    return 0;
}

static int send_line(wcfs_view *v, const char *fmt, ...)
{
    char buf[160];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    /* pwrite, as write(2) would wait for the read(2) of the pinner behind v9fs */
    ssize_t w = RETRY(v->base_mode ? pwrite(v->link, buf, n, 0) : write(v->link, buf, n));
    return w == n ? 0 : -1;
}

/* lose makes every access a SIGBUS, and tells the server not to wait for us any more. */
static void lose(wcfs_view *v, const char *fmt, ...)
{
    if (v->lost)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->why, sizeof v->why, fmt, ap);
    va_end(ap);
    v->lost = true;
    if (v->mem) {
        int fd = memfd_create("wcfs-lost", MFD_CLOEXEC);
        if (fd < 0 || mmap(v->mem, v->reserved, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            mprotect(v->mem, v->reserved, PROT_NONE);
        if (fd >= 0)
            close(fd);
    }
    if (v->link >= 0)
        send_line(v, "3 bye\n");
    pthread_cond_broadcast(&v->replied);
}

/* ---- the pinner ---- */

static void do_pin(wcfs_view *v, uint64_t stream, const char *msg)
{
    uint64_t oid, blk, rev = 0;
    char at[20], *end = "";
    int n = sscanf(msg, "pin %16" SCNx64 " #%" SCNu64 " @%19s", &oid, &blk, at);
    if (n == 3 && strcmp(at, "head"))
        rev = strtoull(at, &end, 16);
    if (n != 3 || oid != v->oid || *end || (!rev && strcmp(at, "head"))) {
        lose(v, "bad message from the server: %s", msg);
        return;
    }
    if (v->base_mode && rev == v->base)
        rev = 0;
    if (rev) {
        if (set_pin(v, blk, rev)) {
            lose(v, "out of memory");
            return;
        }
    } else {
        drop_pin(v, blk);
    }
    if (map_blk(v, blk)) {
        lose(v, "cannot map block %" PRIu64 " @%s: %s", blk, at, strerror(errno));
        return;
    }
    if (!v->lost && send_line(v, "%" PRIu64 " ack\n", stream))
        lose(v, "write to the watch link: %s", strerror(errno));
}

static void do_line(wcfs_view *v, const char *line)
{
    char *msg;
    uint64_t stream = strtoull(line, &msg, 10);
    if (msg == line || *msg != ' ') {
        lose(v, "bad message from the server: %.100s", line);
        return;
    }
    msg++;
    if (stream == 0)
        lose(v, "ended by the server: %s", msg);
    else if (stream % 2 == 0)
        do_pin(v, stream, msg);
    else if (stream == v->stream) {
        snprintf(v->reply, sizeof v->reply, "%s", msg);
        v->have_reply = true;
        pthread_cond_broadcast(&v->replied);
    }
}

static void *pinner(void *arg)
{
    wcfs_view *v = arg;
    char buf[1024]; /* the line so far */
    size_t len = 0;
    for (;;) {
        ssize_t n = RETRY(v->base_mode ? pread(v->link, v->line, LINE, 0) : read(v->link, v->line, LINE));
        pthread_mutex_lock(&v->mu);
        if (n <= 0) {
            if (!v->leaving)
                lose(v, n ? "watch link: %s" : "watch link ended", strerror(errno));
            pthread_mutex_unlock(&v->mu);
            return NULL;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (v->line[i] != '\n') {
                if (len < sizeof buf - 1)
                    buf[len++] = v->line[i];
                continue;
            }
            buf[len] = 0;
            if (len && !v->lost && !v->leaving)
                do_line(v, buf);
            len = 0;
        }
        pthread_mutex_unlock(&v->mu);
    }
}

/* ask sends a request and waits for its reply; mu must be held. */
static int ask(wcfs_view *v, char *err, const char *fmt, ...)
{
    static const uint64_t stream = 1;
    char msg[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    v->stream = stream, v->have_reply = false;
    if (send_line(v, "%" PRIu64 " %s\n", stream, msg))
        lose(v, "write to the watch link: %s", strerror(errno));
    while (!v->have_reply && !v->lost)
        pthread_cond_wait(&v->replied, &v->mu);
    v->stream = 0;
    if (v->lost)
        return fail(err, "%s", v->why);
    if (strcmp(v->reply, "ok"))
        return fail(err, "%s", strncmp(v->reply, "error ", 6) ? v->reply : v->reply + 6);
    return 0;
}

/* start_link opens the watch link and starts the pinner. */
static int start_link(wcfs_view *v, char *err)
{
    v->link = open_below(v->mnt, v->base_mode ? "head/watch9" : "head/watch", O_RDWR, err);
    if (v->link < 0)
        return -1;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&v->pinner, NULL, pinner, v);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e) {
        close(v->link);
        v->link = -1;
        return fail(err, "cannot start a thread: %s", strerror(e));
    }
    v->running = true;
    return 0;
}

/* stop_link ends link and pinner; mu must not be held. */
static void stop_link(wcfs_view *v)
{
    if (v->running) {
        pthread_mutex_lock(&v->mu);
        v->leaving = true;
        pthread_mutex_unlock(&v->mu);
        send_line(v, "3 bye\n"); /* the server ends the link, so the pinner reads its end */
        pthread_join(v->pinner, NULL);
        v->running = v->leaving = false;
    }
    if (v->link >= 0)
        close(v->link);
    v->link = -1;
}

/* ---- views ---- */

/* open_shared opens what is mapped where nothing is pinned: head, or a base for at. */
static int open_shared(wcfs_view *v, uint64_t at, uint64_t *base, char *err)
{
    char rel[64];
    if (!v->base_mode) {
        snprintf(rel, sizeof rel, "head/bigfile/%016" PRIx64, v->oid);
        return open_below(v->mnt, rel, O_RDONLY, err);
    }
    if (read_tid(v->mnt, "head/base", base, err))
        return -1;
    uint64_t newest = *base;
    if (*base > at)
        *base = at;
    for (;;) {
        snprintf(rel, sizeof rel, "base/%016" PRIx64 "/bigfile/%016" PRIx64, *base, v->oid);
        int fd = open_below(v->mnt, rel, O_RDONLY, err);
        if (fd < 0 && errno == ENOENT)
            fail(err, "@%016" PRIx64 " is older than what the server follows (base @%016" PRIx64 ")", at, newest);
        if (fd >= 0 || *base == at)
            return fd;
        *base = at; /* a file younger than the base */
    }
}

/* reserve makes room for size bytes; what was mapped is gone then. */
static int reserve(wcfs_view *v, size_t size)
{
    size_t room = (size + size / 2 + (64 << 20)) & ~(size_t)((2 << 20) - 1);
    if (v->mem)
        munmap(v->mem, v->reserved);
    v->mem = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    v->reserved = room;
    if (v->mem != MAP_FAILED)
        return 0;
    v->mem = NULL, v->reserved = 0;
    return -1;
}

/* arrange sets the view's size and maps it as of at, from scratch or where that may differ; mu must be
 * held. A file that cannot be mapped can still be read. */
static int arrange(wcfs_view *v, uint64_t at, bool scratch, char *err)
{
    struct stat st, sh;
    int fd = open_rev(v, at, err);
    if (fd < 0)
        return -1;
    int bad = RETRY(fstat(fd, &st)) || RETRY(fstat(v->shared, &sh));
    close(fd);
    if (bad)
        return fail(err, "stat: %s", strerror(errno));
    size_t size = st.st_size, end = sh.st_size - sh.st_size % v->blksize;
    if (size % v->blksize)
        return fail(err, "%zu bytes are no whole blocks of %zu", size, v->blksize);
    size_t from = end < v->shared_end ? end : v->shared_end; /* from there on it was @at that was shown */
    if (size && (scratch || size > v->reserved)) {
        from = 0;
        if (v->blksize % sysconf(_SC_PAGESIZE) == 0)
            reserve(v, size);
    }
    if (size < v->size && v->mem) /* what is no more */
        mmap(v->mem + size, v->size - size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (from > v->size)
        from = v->size;
    v->at = at, v->size = size, v->shared_end = end;
    if (map_from(v, from))
        return fail(err, "cannot map: %s", strerror(errno));
    return 0;
}

static int watch_at(wcfs_view *v, uint64_t at, char *err)
{
    if (v->base_mode)
        return ask(v, err, "watch %016" PRIx64 " @%016" PRIx64 " base @%016" PRIx64, v->oid, at, v->base);
    return ask(v, err, "watch %016" PRIx64 " @%016" PRIx64, v->oid, at);
}

/* read_blksize: st_blksize is a power of two over FUSE and arbitrary over virtfs. */
static int read_blksize(wcfs_view *v, char *err)
{
    char rel[64];
    uint64_t n;
    struct stat st;
    snprintf(rel, sizeof rel, ".wcfs/blksize/%016" PRIx64, v->oid);
    if (read_number(v->mnt, rel, 10, 0, &n, err)) {
        if (errno != ENOENT || RETRY(fstat(v->shared, &st)))
            return -1;
        n = st.st_blksize; /* only a part of the tree is mounted */
    }
    v->blksize = n;
    return n ? 0 : fail(err, "blocks of 0 bytes");
}

static int setup(wcfs_view *v, uint64_t at, char *err)
{
    if (wait_head(v->mnt, &at, err))
        return -1;
    if ((v->shared = open_shared(v, at, &v->base, err)) < 0 || read_blksize(v, err) || start_link(v, err))
        return -1;
    pthread_mutex_lock(&v->mu);
    int bad = watch_at(v, at, err) || arrange(v, at, true, err);
    pthread_mutex_unlock(&v->mu);
    return bad;
}

/* is_9p tells whether a directory is on a 9p mount, or -1. statfs does not: behind QEMU's virtfs it shows
 * the type of the host's file system. */
static int is_9p(const char *dir, char *err)
{
    struct stat st;
    char *line = NULL, *type;
    size_t room = 0;
    unsigned ma, mi;
    int found = 0;
    if (RETRY(stat(dir, &st)))
        return fail(err, "%s: %s", dir, strerror(errno));
    FILE *f = fopen("/proc/self/mountinfo", "re");
    if (!f)
        return fail(err, "/proc/self/mountinfo: %s", strerror(errno));
    while (!found && getline(&line, &room, f) > 0)
        found = sscanf(line, "%*d %*d %u:%u", &ma, &mi) == 2 && makedev(ma, mi) == st.st_dev &&
                (type = strstr(line, " - ")) && !strncmp(type, " - 9p ", 6);
    free(line);
    fclose(f);
    return found;
}

static wcfs_view *open_view(const char *mnt, uint64_t oid, uint64_t at, bool base, char *err)
{
    int nine = is_9p(mnt, err);
    if (nine < 0)
        return NULL;
    wcfs_view *v = calloc(1, sizeof *v);
    if (v)
        v->mnt = strdup(mnt), v->line = aligned_alloc(LINE, LINE);
    if (!v || !v->mnt || !v->line) {
        fail(err, "out of memory");
        if (v)
            free(v->mnt), free(v->line), free(v);
        return NULL;
    }
    v->oid = oid, v->link = v->shared = -1;
    v->base_mode = base || nine;
    v->owner = getpid();
    pthread_mutex_init(&v->mu, NULL);
    pthread_cond_init(&v->replied, NULL);
    if (!setup(v, at, err))
        return v;
    wcfs_close(v);
    return NULL;
}

wcfs_view *wcfs_open(const char *mnt, uint64_t oid, uint64_t at, char *err)
{
    return open_view(mnt, oid, at, false, err);
}

wcfs_view *wcfs_open_base(const char *mnt, uint64_t oid, uint64_t at, char *err)
{
    return open_view(mnt, oid, at, true, err);
}

/* rebase starts anew over the present base, with a link of its own: so no pin can be of either. */
static int rebase(wcfs_view *v, uint64_t at, int shared, uint64_t base, char *err)
{
    stop_link(v);
    pthread_mutex_lock(&v->mu);
    free(v->pins);
    v->pins = NULL, v->npins = v->cap = 0;
    close(v->shared);
    v->shared = shared, v->base = base;
    pthread_mutex_unlock(&v->mu);
    if (start_link(v, err))
        return -1;
    pthread_mutex_lock(&v->mu);
    int bad = watch_at(v, at, err) || arrange(v, at, true, err);
    pthread_mutex_unlock(&v->mu);
    return bad;
}

static int foreign(const wcfs_view *v, char *err)
{
    return v->owner == getpid() ? 0 : fail(err, "a view belongs to the process that opened it: open another after fork");
}

int wcfs_resync(wcfs_view *v, uint64_t at, char *err)
{
    if (foreign(v, err) || wcfs_lost(v, err) || wait_head(v->mnt, &at, err))
        return -1;
    if (at < v->at)
        return fail(err, "@%016" PRIx64 " is before @%016" PRIx64 ": a view cannot go back", at, v->at);
    if (v->base_mode) {
        uint64_t base = v->base;
        int shared = open_shared(v, at, &base, err);
        if (shared < 0)
            return -1;
        if (base > v->base) {
            if (!rebase(v, at, shared, base, err))
                return 0;
            pthread_mutex_lock(&v->mu);
            lose(v, "resync failed");
            pthread_mutex_unlock(&v->mu);
            return -1;
        }
        close(shared);
    }
    pthread_mutex_lock(&v->mu);
    int bad = watch_at(v, at, err); /* blocks past our old end are remembered meanwhile */
    if (!bad && arrange(v, at, false, err)) {
        lose(v, "resync failed");
        bad = -1;
    }
    pthread_mutex_unlock(&v->mu);
    return bad;
}

ssize_t wcfs_read(wcfs_view *v, void *buf, size_t len, uint64_t off, char *err)
{
    size_t done = 0;
    if (foreign(v, err))
        return -1;
    while (done < len) {
        pthread_mutex_lock(&v->mu);
        if (v->lost || off >= v->size) {
            ssize_t r = v->lost ? fail(err, "%s", v->why) : (ssize_t)done;
            pthread_mutex_unlock(&v->mu);
            return r;
        }
        uint64_t blk = off / v->blksize, rev = pinned(v, blk);
        size_t n = v->blksize - off % v->blksize, shared_end = v->shared_end;
        if (n > len - done)
            n = len - done;
        if (!rev && off >= shared_end)
            rev = v->at;
        pthread_mutex_unlock(&v->mu);

        int fd = rev ? open_rev(v, rev, err) : v->shared;
        if (fd < 0)
            return -1;
        ssize_t r = RETRY(pread(fd, (char *)buf + done, n, off));
        int e = errno;
        if (rev)
            close(fd);
        if (r < 0)
            return fail(err, "read at %" PRIu64 ": %s", off, strerror(e));
        pthread_mutex_lock(&v->mu);
        bool same = rev || (!v->lost && !pinned(v, blk)); /* else what was read may be newer than ours */
        if (same && r == 0 && !rev && off < v->size) {
            v->shared_end = off - off % v->blksize; /* the shared file has become shorter */
            same = false;
        }
        pthread_mutex_unlock(&v->mu);
        if (!same)
            continue;
        if (r == 0)
            memset((char *)buf + done, 0, r = n);
        done += r, off += r;
    }
    return done;
}

const void *wcfs_data(const wcfs_view *v) { return v->size ? v->mem : NULL; }
size_t wcfs_size(const wcfs_view *v) { return v->size; }
size_t wcfs_blksize(const wcfs_view *v) { return v->blksize; }
uint64_t wcfs_at(const wcfs_view *v) { return v->at; }

uint64_t wcfs_pinned(wcfs_view *v, uint64_t blk)
{
    pthread_mutex_lock(&v->mu);
    uint64_t rev = pinned(v, blk);
    pthread_mutex_unlock(&v->mu);
    return rev;
}

int wcfs_lost(wcfs_view *v, char *err)
{
    if (foreign(v, err))
        return 1;
    pthread_mutex_lock(&v->mu);
    int lost = v->lost;
    if (lost)
        fail(err, "%s", v->why);
    pthread_mutex_unlock(&v->mu);
    return lost;
}

void wcfs_close(wcfs_view *v)
{
    if (!v)
        return;
    if (!foreign(v, NULL)) {
        stop_link(v);
        if (v->mem)
            munmap(v->mem, v->reserved);
    } else { /* the link goes on in the parent; here there is neither a pinner nor the memory */
        close(v->link);
    }
    if (v->shared >= 0)
        close(v->shared);
    pthread_cond_destroy(&v->replied);
    pthread_mutex_destroy(&v->mu);
    free(v->pins);
    free(v->line);
    free(v->mnt);
    free(v);
}
