/* testclient.c - a client in C that does what it is told, a command a line, and answers each by a line:
 *
 *   open MNT OID AT     ok AT SIZE BLKSIZE         (AT 0: head)
 *   base MNT OID AT     the same, in base mode
 *   map                 ok AT SIZE CRC CRC ...     of each block, from memory; or "sigbus"
 *   read                ok AT SIZE CRC CRC ...     of each block, by wcfs_read
 *   peek OFF            ok BYTE                    one byte from memory; or "sigbus"
 *   resync AT           ok AT SIZE BLKSIZE
 *   pins                ok N                       blocks that are pinned
 *   fork                ok SIGNAL                  what ends a child that reads memory (0: nothing does)
 *   close               ok
 *
 * What fails is answered "error WHY". With WCFS_TEST_ALARM set a signal comes every millisecond.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wcfs.h"

static sigjmp_buf fault;

static void on_sigbus(int sig)
{
    (void)sig;
    siglongjmp(fault, 1);
}

static void on_alarm(int sig) { (void)sig; }

static uint32_t crc(const unsigned char *p, size_t n)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    uint32_t c = ~0u;
    while (n--)
        c = table[(c ^ *p++) & 255] ^ c >> 8;
    return ~c;
}

static void told(wcfs_view *v)
{
    printf("ok %016" PRIx64 " %zu %zu\n", wcfs_at(v), wcfs_size(v), wcfs_blksize(v));
}

static void sums(wcfs_view *v, int from_memory)
{
    size_t bs = wcfs_blksize(v), n = wcfs_size(v) / bs;
    uint32_t *sum = calloc(n + 1, sizeof *sum);
    unsigned char *buf = malloc(bs);
    char err[WCFS_ERR];
    if (from_memory && n && !wcfs_data(v)) {
        printf("error not mapped\n");
        n = 0, from_memory = 2;
    }
    for (size_t i = 0; i < n; i++) {
        if (from_memory) {
            sum[i] = crc((const unsigned char *)wcfs_data(v) + i * bs, bs);
            continue;
        }
        ssize_t r = wcfs_read(v, buf, bs, i * bs, err);
        if (r != (ssize_t)bs) {
            printf("error %s\n", r < 0 ? err : "short read");
            goto end;
        }
        sum[i] = crc(buf, bs);
    }
    if (from_memory == 2)
        goto end;
    printf("ok %016" PRIx64 " %zu", wcfs_at(v), wcfs_size(v));
    for (size_t i = 0; i < n; i++)
        printf(" %08" PRIx32, sum[i]);
    printf("\n");
end:
    free(sum);
    free(buf);
}

/* forked has a child read memory, which it must not see, and close the view, which is the parent's too. */
static void forked(wcfs_view *v)
{
    char err[WCFS_ERR];
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        char byte;
        if (wcfs_read(v, &byte, 1, 0, err) != -1 || wcfs_resync(v, WCFS_HEAD, err) != -1)
            _exit(1);
        const volatile char *data = wcfs_data(v);
        wcfs_close(v);
        _exit(data[0] ? 2 : 3);
    }
    waitpid(child, &status, 0);
    printf("ok %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

int main(void)
{
    static char line[4096], mnt[4096];
    char err[WCFS_ERR];
    wcfs_view *volatile v = NULL;
    struct sigaction sa = {.sa_handler = on_sigbus, .sa_flags = SA_NODEFER};
    sigaction(SIGBUS, &sa, NULL);
    struct sigaction alarm = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 1000}, {0, 1000}};
    if (getenv("WCFS_TEST_ALARM") && !sigaction(SIGALRM, &alarm, NULL))
        setitimer(ITIMER_REAL, &often, NULL);
    while (fgets(line, sizeof line, stdin)) {
        uint64_t oid, at, off;
        char cmd[16] = "";
        sscanf(line, "%15s", cmd);
        if (sigsetjmp(fault, 1)) {
            printf("sigbus\n");
        } else if (sscanf(line, "%*s %4095s %" SCNx64 " %" SCNx64, mnt, &oid, &at) == 3) {
            v = (*cmd == 'b' ? wcfs_open_base : wcfs_open)(mnt, oid, at, err);
            if (v)
                told(v);
            else
                printf("error %s\n", err);
        } else if (!strcmp(cmd, "map") || !strcmp(cmd, "read")) {
            sums(v, *cmd == 'm');
        } else if (sscanf(line, "peek %" SCNu64, &off) == 1) {
            printf("ok %d\n", ((const volatile unsigned char *)wcfs_data(v))[off]);
        } else if (sscanf(line, "resync %" SCNx64, &at) == 1) {
            if (wcfs_resync(v, at, err))
                printf("error %s\n", err);
            else
                told(v);
        } else if (!strcmp(cmd, "pins")) {
            size_t n = 0;
            for (size_t i = 0; i < wcfs_size(v) / wcfs_blksize(v); i++)
                n += wcfs_pinned(v, i) != 0;
            printf("ok %zu\n", n);
        } else if (!strcmp(cmd, "fork")) {
            forked(v);
        } else if (!strcmp(cmd, "close")) {
            wcfs_close(v);
            v = NULL;
            printf("ok\n");
        } else {
            printf("error unknown command\n");
        }
        fflush(stdout);
    }
    return 0;
}
