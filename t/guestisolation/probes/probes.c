/* probes - looks, in a guest, at what its kernel makes of the server's files. Each command prints "name number" pairs, and
 * ends with status 0 when what clients rely on holds.
 *
 * probes remap MNT OID HOW
 *     touches a block of the base that differs in head/at. The thread that gets the pin maps @at over it
 *     while the fault is held, and acknowledges. HOW: load (by the program), pipe (by the kernel for
 *     write(2)), populate (MADV_POPULATE_READ), mem (through /proc/self/mem: which is known to fail).
 * probes second MNT OID SECONDS
 *     one thread touches a page, another drops it from the page cache all the time, so that a fault reads it
 *     twice, the second time with the process' memory locked; a third one maps memory. All that time watches
 *     over the page are set up whose pins are acknowledged late, each after a MAP_FIXED.
 * probes padded WATCH
 *     reads messages and signs of life, and writes while a read by the same descriptor waits.
 * probes setup WATCH OID AT BASE
 *     sets up a base watch and tells how many pins came with that.
 * probes crowd MNT N
 *     has N reads wait for messages and reads other files meanwhile.
 * probes touch FILE OFFSET
 *     reads one byte of a mapped file.
 */
#include "link.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static int run_remap(const char *how)
{
    static struct link l;
    static char want[PAGE], got[PAGE];
    take_tids();
    int base_fd = open_below("base/%016" PRIx64 "/bigfile/%s", base), at_fd = open_below("@%016" PRIx64 "/bigfile/%s", at);
    off_t size = lseek(base_fd, 0, SEEK_END);
    char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, base_fd, 0);
    madvise(map, size, MADV_RANDOM);
    link_open(&l, watch_path());
    l.over = map;
    watch(&l);
    unsigned before = l.pins;
    /* each way of touching has a block that nobody has read under this base */
    size_t off = (!strcmp(how, "load") ? 1 : !strcmp(how, "pipe") ? 2 : !strcmp(how, "mem") ? 4 : 3) * BLK + PAGE;
    if (pread(at_fd, want, PAGE, off) != PAGE)
        die("@at");
    start(pinner, &l);
    int fds[2];
    if (pipe(fds))
        die("pipe");
    uint64_t began = now_us();
    if (!strcmp(how, "pipe")) {
        if (write(fds[1], map + off, PAGE) != PAGE || read(fds[0], got, PAGE) != PAGE)
            die("write");
    } else if (!strcmp(how, "mem")) {
        if (pread(must_open("/proc/self/mem", O_RDONLY), got, PAGE, (off_t)(uintptr_t)(map + off)) != PAGE)
            die("/proc/self/mem");
    } else {
        if (!strcmp(how, "populate") && madvise(map + off, PAGE, MADV_POPULATE_READ))
            die("MADV_POPULATE_READ");
        memcpy(got, map + off, PAGE);
    }
    uint64_t touch_ms = ms_since(began);
    printf("pins %u open-us %" PRIu64 " mmap-us %" PRIu64 " fixed-us %" PRIu64 " touch-ms %" PRIu64 "\n", l.pins - before,
           l.open_us, l.anon_us, l.fixed_us, touch_ms);
    return l.pins != before + 1 || memcmp(want, got, PAGE);
}

static atomic_int stop;
static int second_fd;
static atomic_ulong longest_map, setups;

static void *dropper(void *arg)
{
    while (!stop)
        posix_fadvise(second_fd, 0, BLK, POSIX_FADV_DONTNEED);
    return arg;
}

static void *mapper(void *arg)
{
    while (!stop) {
        uint64_t began = now_us();
        munmap(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), PAGE);
        uint64_t us = now_us() - began;
        if (us > longest_map)
            longest_map = us;
        usleep(200);
    }
    return arg;
}

/* watcher has views of its own over the block, so that its pins come while others fault on it */
static void *watcher(void *map)
{
    while (!stop) {
        struct link l;
        link_open(&l, watch_path());
        l.over = map, l.late_ms = 50;
        watch(&l);
        link_close(&l);
        setups++;
    }
    return NULL;
}

static int run_second(int seconds)
{
    take_tids();
    second_fd = open_below("base/%016" PRIx64 "/bigfile/%s", base);
    volatile char *map = mmap(NULL, BLK, PROT_READ, MAP_SHARED, second_fd, 0);
    madvise((void *)map, BLK, MADV_RANDOM);
    uint64_t own = number_in(".wcfs/stats", "p9msg\t: ", 10); /* what asking costs is measured too */
    uint64_t before = number_in(".wcfs/stats", "p9msg\t: ", 10);
    own = before - own;
    uint64_t longest = 0, began = now_us(), end = began + seconds * UINT64_C(1000000), touches = 0, sum = 0;
    struct rusage r0, r1;
    pthread_t watching = 0;
    start(dropper, NULL);
    start(mapper, NULL);
    getrusage(RUSAGE_THREAD, &r0);
    for (uint64_t now = began; now < end; now = now_us()) {
        madvise((void *)map, BLK, MADV_DONTNEED);
        posix_fadvise(second_fd, 0, BLK, POSIX_FADV_DONTNEED);
        uint64_t touched = now_us();
        sum += map[0];
        most(&longest, touched);
        touches++;
        if (!watching && now > began + (end - began) / 2) { /* up to here nobody else sends messages */
            getrusage(RUSAGE_THREAD, &r1);
            uint64_t sent = number_in(".wcfs/stats", "p9msg\t: ", 10) - before - own;
            printf("faults %ld messages %" PRIu64 "\n", r1.ru_majflt - r0.ru_majflt, sent);
            watching = start(watcher, mmap(NULL, BLK, PROT_READ, MAP_SHARED, second_fd, 0));
        }
    }
    stop = 1;
    pthread_join(watching, NULL); /* it owes an acknowledgement */
    printf("touches %" PRIu64 " setups %lu touch-max-us %" PRIu64 " mmap-max-us %lu\n", touches, setups, longest, longest_map);
    return !setups;
}

/* one message or sign of life: how long it took, and whether it was padded to what was asked for */
static uint64_t read_once(int fd, char *buf, size_t n, const char *want)
{
    uint64_t began = now_us();
    ssize_t got = pread(fd, buf, n, 0);
    uint64_t ms = ms_since(began);
    size_t len = strlen(want);
    if (got != (ssize_t)n || strncmp(buf, want, len) || buf[n - 1] != '\n') {
        printf("probes: a read of %zu gave %zd bytes: %.20s\n", n, got, buf);
        exit(1);
    }
    return ms;
}

static void *reader(void *arg)
{
    struct link *l = arg;
    while (!stop)
        if (read(l->fd, l->buf, PAGE) < 0)
            die("read");
    return NULL;
}

static int run_padded(const char *path)
{
    struct link l;
    link_open(&l, path);
    uint64_t blank = read_once(l.fd, l.buf, PAGE, "\n"), small = read_once(l.fd, l.buf, 100, "\n");
    link_write(&l, "1 hello\n");
    uint64_t message = read_once(l.fd, l.buf, PAGE, "1 error");
    static struct link two;
    link_open(&two, path);
    start(reader, &two);
    usleep(500000);
    uint64_t began = now_us();
    link_write(&two, "5 hello\n");
    uint64_t pwrite_us = now_us() - began;
    usleep(500000);
    began = now_us();
    if (write(two.fd, "7 hello\n", 8) != 8)
        die("write");
    printf("blank-ms %" PRIu64 " blank-100-ms %" PRIu64 " message-ms %" PRIu64 " pwrite-us %" PRIu64 " write-ms %" PRIu64 "\n", blank,
           small, message, pwrite_us, ms_since(began));
    return 0;
}

static int run_setup(const char *path)
{
    struct link l;
    link_open(&l, path);
    watch(&l);
    printf("pins %u\n", l.pins);
    return 0;
}

static atomic_int answered;

static void *waiter(void *arg)
{
    struct link l;
    link_open(&l, watch_path());
    while (pread(l.fd, l.buf, PAGE, 0) > 0)
        answered++;
    return arg;
}

static int run_crowd(int n)
{
    for (int i = 0; i < n; i++)
        start(waiter, NULL);
    uint64_t longest = 0, end = now_us() + 8000000; /* longer than from one sign of life to the next */
    while (now_us() < end) {
        uint64_t began = now_us();
        number_in("head/at", "", 16);
        most(&longest, began);
        usleep(10000);
    }
    printf("answered %d read-max-ms %" PRIu64 "\n", answered, longest / 1000);
    return answered < n;
}

static sigjmp_buf fault;
static void on_sigbus(int sig) { siglongjmp(fault, sig); }

static int run_touch(const char *path, off_t off)
{
    int fd = must_open(path, O_RDONLY);
    volatile char *map = mmap(NULL, lseek(fd, 0, SEEK_END), PROT_READ, MAP_SHARED, fd, 0);
    if (sigsetjmp(fault, 1)) {
        printf("SIGBUS\n");
        return 0;
    }
    printf("byte %d\n", map[off]);
    return 0;
}

int main(int argc, char **argv)
{
    struct sigaction sa = {.sa_handler = on_sigbus};
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *cmd = argc > 2 ? argv[1] : "";
    mnt = argv[2], oid = argv[3];
    if (!strcmp(cmd, "remap") && argc == 5)
        return run_remap(argv[4]);
    if (!strcmp(cmd, "second") && argc == 5)
        return run_second(atoi(argv[4]));
    if (!strcmp(cmd, "padded"))
        return run_padded(argv[2]);
    if (!strcmp(cmd, "setup") && argc == 6) {
        at = strtoull(argv[4], NULL, 16), base = strtoull(argv[5], NULL, 16);
        return run_setup(argv[2]);
    }
    if (!strcmp(cmd, "crowd") && argc == 4)
        return run_crowd(atoi(argv[3]));
    if (!strcmp(cmd, "touch") && argc == 4) {
        sigaction(SIGBUS, &sa, NULL);
        return run_touch(argv[2], atoll(argv[3]));
    }
    printf("usage: probes remap|second|padded|setup|crowd|touch ...\n");
    return 2;
}
