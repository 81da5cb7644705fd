/* Fails the n-th call of a kind below a folder: LD_PRELOAD of `scripts/bench faults` and
   `scripts/bench cuts`, for Linux.

   FAULTS names a file of SHARED bytes that all processes of a command map: who drives them writes
   `below`, `kind`, `error`, `at` and `lasting` there, and reads the names of the kinds and how often
   each was called. An `error` of -1 moves only half of the bytes, as a signal or a full pipe does;
   with one of -2 or -3 the power goes before the call: the file system that `below` is loses all that
   is not on its disk, but keeps with -3 every name. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/major.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHARED = 4096, MOST = 40, HALF = -1, CUT = -2, CUT_NAMED = -3 };
#define KINDS(K) \
    K(open) K(read) K(pread) K(write) K(pwrite) K(fsync) K(fsyncdir) K(fdatasync) K(syncfs) K(rename) \
    K(link) K(symlink) K(unlink) K(mkdir) K(rmdir) K(lock) K(flock) K(ftruncate) K(fallocate) \
    K(copy) K(sendfile) K(mmap) K(statvfs) K(opendir) K(readdir) K(stat) K(seek) K(close) K(chmod) \
    K(fork) K(thread)
#define NUMBER(name) OF_##name,
#define NAME(name) #name,
enum { KINDS(NUMBER) NUMBER_OF_KINDS };
static const char *const NAMES[] = { KINDS(NAME) };

static struct shared {
    char below[1024], kind[16];
    int32_t error, lasting;
    int64_t at, calls[MOST];
    char names[MOST][16];
} *shared;
_Static_assert(sizeof(struct shared) <= SHARED, "a page");
_Static_assert((int)NUMBER_OF_KINDS <= (int)MOST, "kinds");

__attribute__((constructor)) static void begin(void) {
    const char *place = getenv("FAULTS");
    int handle = place ? (int)syscall(SYS_openat, AT_FDCWD, place, O_RDWR) : -1;
    if (handle < 0) return;
    void *page = (void *)syscall(SYS_mmap, 0, SHARED, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0L);
    syscall(SYS_close, handle);
    if (page == MAP_FAILED) return;
    shared = page;
    for (int each = 0; each < NUMBER_OF_KINDS; each++) strncpy(shared->names[each], NAMES[each], 15);
}

static int begins(const char *path) {
    size_t length = strlen(shared->below);
    return length && !strncmp(path, shared->below, length) && (!path[length] || path[length] == '/');
}

static int below_handle(int handle) {
    char link[40], path[PATH_MAX];
    if (!shared || handle < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return begins(path);
}

static int below_path(int folder, const char *path) {
    char here[PATH_MAX];
    if (!shared || !path) return 0;
    if (path[0] == '/') return begins(path);
    return folder == AT_FDCWD ? getcwd(here, sizeof here) && begins(here) : below_handle(folder);
}

/* The power goes: EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one, and end a file system as it is on
   its disk (2), or with its journal written first (1). Only that of a loop device, never one that
   others work on. The processes of the command are no more. */
static void cut(int how) {
    struct stat of; uint32_t flag = how == CUT ? 2 : 1;
    int handle = (int)syscall(SYS_openat, AT_FDCWD, shared->below, O_RDONLY | O_DIRECTORY);
    if (syscall(SYS_fstat, handle, &of) == 0 && major(of.st_dev) == LOOP_MAJOR)
        syscall(SYS_ioctl, handle, _IOR('X', 125, uint32_t), &flag);
    kill(0, SIGKILL);
}

/* Counts a call; the error that it is to fail with, or 0. */
static int fault(int kind, int is_below) {
    if (!shared || !is_below) return 0;
    int64_t number = __atomic_add_fetch(&shared->calls[kind], 1, __ATOMIC_SEQ_CST);
    if (!shared->at || strcmp(shared->kind, NAMES[kind])) return 0;
    if (number != shared->at && !(shared->lasting && number > shared->at)) return 0;
    if (shared->error <= CUT) cut(shared->error);
    return shared->error;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
/* What a call does first: keep errno, which counting may change, and fail if it is its turn. */
#define FAIL(kind, is_below, failed) \
    int kept = errno, found = fault(OF_##kind, is_below); errno = kept; \
    if (found > 0) { errno = found; return failed; }
#define PLAIN(kind, is_below, returned, name, types, values) \
    returned name types { REAL(name); FAIL(kind, is_below, (returned)-1) return real values; }
#define MOVING(kind, handle, name, types, values, size) \
    ssize_t name types { REAL(name); FAIL(kind, below_handle(handle), -1) \
        size = found == HALF && size > 1 ? size / 2 : size; return real values; }

#define OPENING(name, folder, types, values) \
    int name types { REAL(name); mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        FAIL(open, below_path(folder, path), -1) return real values; }
OPENING(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENING(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENING(openat, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENING(openat64, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
FILE *fopen(const char *path, const char *how) {
    REAL(fopen); FAIL(open, below_path(AT_FDCWD, path), NULL) return real(path, how); }
FILE *fopen64(const char *path, const char *how) {
    REAL(fopen64); FAIL(open, below_path(AT_FDCWD, path), NULL) return real(path, how); }

MOVING(read, h, read, (int h, void *to, size_t n), (h, to, n), n)
MOVING(read, h, readv, (int h, const struct iovec *to, int n), (h, to, n), n)
MOVING(pread, h, pread, (int h, void *to, size_t n, off_t at), (h, to, n, at), n)
MOVING(pread, h, pread64, (int h, void *to, size_t n, off64_t at), (h, to, n, at), n)
MOVING(pread, h, preadv, (int h, const struct iovec *to, int n, off_t at), (h, to, n, at), n)
MOVING(pread, h, preadv64, (int h, const struct iovec *to, int n, off64_t at), (h, to, n, at), n)
MOVING(pread, h, preadv64v2, (int h, const struct iovec *to, int n, off64_t at, int how), (h, to, n, at, how), n)
MOVING(write, h, write, (int h, const void *of, size_t n), (h, of, n), n)
MOVING(write, h, writev, (int h, const struct iovec *of, int n), (h, of, n), n)
MOVING(pwrite, h, pwrite, (int h, const void *of, size_t n, off_t at), (h, of, n, at), n)
MOVING(pwrite, h, pwrite64, (int h, const void *of, size_t n, off64_t at), (h, of, n, at), n)
MOVING(pwrite, h, pwritev, (int h, const struct iovec *of, int n, off_t at), (h, of, n, at), n)
MOVING(pwrite, h, pwritev64, (int h, const struct iovec *of, int n, off64_t at), (h, of, n, at), n)
MOVING(pwrite, h, pwritev64v2, (int h, const struct iovec *of, int n, off64_t at, int how), (h, of, n, at, how), n)
MOVING(copy, from, copy_file_range, (int from, off64_t *at, int to, off64_t *place, size_t n, unsigned how), (from, at, to, place, n, how), n)
MOVING(sendfile, from, sendfile, (int to, int from, off_t *at, size_t n), (to, from, at, n), n)
MOVING(sendfile, from, sendfile64, (int to, int from, off64_t *at, size_t n), (to, from, at, n), n)

int fsync(int h) {
    struct stat of; int is_below = below_handle(h);
    REAL(fsync);
    if (is_below && syscall(SYS_fstat, h, &of) == 0 && S_ISDIR(of.st_mode)) { FAIL(fsyncdir, 1, -1) }
    else { FAIL(fsync, is_below, -1) }
    return real(h);
}
PLAIN(fdatasync, below_handle(h), int, fdatasync, (int h), (h))
PLAIN(syncfs, below_handle(h), int, syncfs, (int h), (h))
PLAIN(rename, below_path(AT_FDCWD, to), int, rename, (const char *from, const char *to), (from, to))
PLAIN(rename, below_path(b, to), int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
PLAIN(link, below_path(AT_FDCWD, to), int, link, (const char *from, const char *to), (from, to))
PLAIN(link, below_path(b, to), int, linkat, (int a, const char *from, int b, const char *to, int how), (a, from, b, to, how))
PLAIN(symlink, below_path(AT_FDCWD, to), int, symlink, (const char *from, const char *to), (from, to))
PLAIN(symlink, below_path(b, to), int, symlinkat, (const char *from, int b, const char *to), (from, b, to))
PLAIN(unlink, below_path(AT_FDCWD, path), int, unlink, (const char *path), (path))
int unlinkat(int folder, const char *path, int how) {
    REAL(unlinkat); int is_below = below_path(folder, path);
    if (how & AT_REMOVEDIR) { FAIL(rmdir, is_below, -1) } else { FAIL(unlink, is_below, -1) }
    return real(folder, path, how);
}
PLAIN(mkdir, below_path(AT_FDCWD, path), int, mkdir, (const char *path, mode_t mode), (path, mode))
PLAIN(mkdir, below_path(a, path), int, mkdirat, (int a, const char *path, mode_t mode), (a, path, mode))
PLAIN(rmdir, below_path(AT_FDCWD, path), int, rmdir, (const char *path), (path))
#define IS_LOCK(how) ((how) == F_SETLK || (how) == F_SETLKW || (how) == F_GETLK)
#define CONTROL(name) \
    int name(int h, int how, ...) { REAL(name); \
        va_list rest; va_start(rest, how); void *value = va_arg(rest, void *); va_end(rest); \
        FAIL(lock, IS_LOCK(how) && below_handle(h), -1) return real(h, how, value); }
CONTROL(fcntl)
CONTROL(fcntl64)
PLAIN(lock, below_handle(h), int, lockf64, (int h, int how, off64_t n), (h, how, n))
PLAIN(flock, below_handle(h), int, flock, (int h, int how), (h, how))
PLAIN(ftruncate, below_handle(h), int, ftruncate, (int h, off_t n), (h, n))
PLAIN(ftruncate, below_handle(h), int, ftruncate64, (int h, off64_t n), (h, n))
PLAIN(ftruncate, below_path(AT_FDCWD, path), int, truncate64, (const char *path, off64_t n), (path, n))
PLAIN(fallocate, below_handle(h), int, fallocate, (int h, int how, off_t at, off_t n), (h, how, at, n))
PLAIN(fallocate, below_handle(h), int, fallocate64, (int h, int how, off64_t at, off64_t n), (h, how, at, n))
/* These give their error back instead of setting errno. */
int posix_fallocate64(int h, off64_t at, off64_t n) {
    REAL(posix_fallocate64); int found = fault(OF_fallocate, below_handle(h));
    return found > 0 ? found : real(h, at, n); }
int pthread_create(pthread_t *to, const pthread_attr_t *how, void *(*work)(void *), void *value) {
    REAL(pthread_create); int found = fault(OF_thread, 1);
    return found > 0 ? found : real(to, how, work, value); }
PLAIN(fork, 1, pid_t, fork, (void), ())
PLAIN(mmap, below_handle(h), void *, mmap, (void *a, size_t n, int p, int f, int h, off_t at), (a, n, p, f, h, at))
PLAIN(mmap, below_handle(h), void *, mmap64, (void *a, size_t n, int p, int f, int h, off64_t at), (a, n, p, f, h, at))
PLAIN(statvfs, below_path(AT_FDCWD, path), int, statvfs, (const char *path, struct statvfs *to), (path, to))
PLAIN(statvfs, below_path(AT_FDCWD, path), int, statvfs64, (const char *path, struct statvfs64 *to), (path, to))
PLAIN(statvfs, below_handle(h), int, fstatvfs64, (int h, struct statvfs64 *to), (h, to))
DIR *opendir(const char *path) {
    REAL(opendir); FAIL(opendir, below_path(AT_FDCWD, path), NULL) return real(path); }
DIR *fdopendir(int h) { REAL(fdopendir); FAIL(opendir, below_handle(h), NULL) return real(h); }
struct dirent *readdir(DIR *of) { REAL(readdir); FAIL(readdir, below_handle(dirfd(of)), NULL) return real(of); }
struct dirent64 *readdir64(DIR *of) { REAL(readdir64); FAIL(readdir, below_handle(dirfd(of)), NULL) return real(of); }
PLAIN(stat, below_path(AT_FDCWD, path), int, stat64, (const char *restrict path, struct stat64 *restrict to), (path, to))
PLAIN(stat, below_path(AT_FDCWD, path), int, lstat64, (const char *restrict path, struct stat64 *restrict to), (path, to))
PLAIN(stat, below_path(a, path), int, fstatat64, (int a, const char *restrict path, struct stat64 *restrict to, int how), (a, path, to, how))
PLAIN(stat, below_handle(h), int, fstat64, (int h, struct stat64 *to), (h, to))
PLAIN(seek, below_handle(h), off64_t, lseek64, (int h, off64_t at, int how), (h, at, how))
PLAIN(chmod, below_path(AT_FDCWD, path), int, chmod, (const char *path, mode_t mode), (path, mode))
PLAIN(chmod, below_handle(h), int, fchmod, (int h, mode_t mode), (h, mode))
PLAIN(chmod, below_path(a, path), int, utimensat, (int a, const char *path, const struct timespec of[2], int how), (a, path, of, how))
int close(int h) {
    REAL(close); FAIL(close, below_handle(h), (real(h), errno = found, -1)) return real(h); }
