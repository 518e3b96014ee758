/* wcfs.h - a client of wcfs: a bigfile as of a revision, in memory.
 *
 * A view maps one bigfile of a mounted wcfs as of one transaction. All views share the kernel's page
 * cache; a thread of the library follows the server's pin messages and re-maps blocks, so that the
 * memory never shows bytes of another revision. It works on a FUSE mount and, in base mode, on a 9P
 * mount (cache=none, over native 9P with uname=NAME); which of them is found out from the mount.
 *
 * Link with -lwcfs -pthread. Functions that can fail take a buffer of WCFS_ERR bytes (or NULL) for a
 * line that says why.
 *
 * Rules for the caller:
 *   - The memory may be read, and wcfs_read and the functions that only tell may be called, by any thread
 *     between wcfs_open and wcfs_close, but not during wcfs_resync. A read waits, in the kernel, until the
 *     block is there.
 *   - When the server is lost, or ends the view, every access to the memory is a SIGBUS and every call
 *     an error: never a wrong byte.
 *   - If other processes make the bigfile shorter, blocks past its new end can become SIGBUS too, until
 *     wcfs_resync; wcfs_read still gives them.
 *   - After fork the child has neither the memory (SIGSEGV) nor the view: all it may do with it is
 *     wcfs_close. It opens its own. Descriptors are close-on-exec.
 *   - A thread that is stopped (debugger, SIGSTOP to the process) for longer than the server's pintimeout
 *     while others commit is a client that does not acknowledge: the server kills the process.
 */
#ifndef WCFS_H
#define WCFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WCFS_ERR 256        /* bytes of an error buffer */
#define WCFS_HEAD 0         /* as `at`: the newest transaction */

typedef struct wcfs_view wcfs_view;

/* wcfs_open makes a view of the ZBigFile oid as of transaction at, below mount point mnt. If the server
 * has not come to that transaction yet it waits for it, half a minute at most. Returns NULL on failure. */
wcfs_view *wcfs_open(const char *mnt, uint64_t oid, uint64_t at, char *err);

/* wcfs_open_base is wcfs_open in base mode, whatever kind of mount that is: for file systems that pass a
 * 9P mount on. */
wcfs_view *wcfs_open_base(const char *mnt, uint64_t oid, uint64_t at, char *err);

/* The file's bytes as of wcfs_at: wcfs_size bytes at wcfs_data, in blocks of wcfs_blksize. The data is
 * NULL when the size is 0, and when it cannot be mapped, since blocks are no whole pages or there is no
 * such address space: wcfs_read works then, too. */
const void *wcfs_data(const wcfs_view *v);
size_t wcfs_size(const wcfs_view *v);
size_t wcfs_blksize(const wcfs_view *v);
uint64_t wcfs_at(const wcfs_view *v);

/* wcfs_read copies len bytes at off into buf, without touching the mapping: it cannot raise SIGBUS.
 * Returns the number of bytes (fewer at the end of the file, 0 past it) or -1. */
ssize_t wcfs_read(wcfs_view *v, void *buf, size_t len, uint64_t off, char *err);

/* wcfs_resync moves the view to a later transaction, WCFS_HEAD for the newest, and waits for it as
 * wcfs_open does. Size and address may change. Returns 0, or -1: then the view is as it was if at is
 * refused or does not come, else it is lost. */
int wcfs_resync(wcfs_view *v, uint64_t at, char *err);

/* wcfs_pinned returns the revision that block blk is shown at, 0 when it is shown from the shared file. */
uint64_t wcfs_pinned(wcfs_view *v, uint64_t blk);

/* wcfs_lost returns 1 when the view is lost, and says why. */
int wcfs_lost(wcfs_view *v, char *err);

/* wcfs_close ends the view; its memory is unmapped. NULL is nothing. */
void wcfs_close(wcfs_view *v);

#ifdef __cplusplus
}
#endif
#endif
