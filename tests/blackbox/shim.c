/* A disk that can be slow, can fail, and remembers what it really has.
 *
 * Preloaded into the program under test (LD_PRELOAD). kill -9 alone proves nothing about durability, because the page
 * cache survives it. This shim writes down how much of each file was synced; power_cut.py then cuts every file back to
 * that, which is what a power cut would have left.
 *
 * Environment, read once at start:
 *   SHIM_ROOT     only files below this directory are watched (an absolute path without links)
 *   SHIM_JOURNAL  where the lengths are written down; outside SHIM_ROOT
 *   SHIM_CONTROL  a small text file, read anew at each sync, so a test can change its mind while the program runs:
 *                   delay_ms=300           every fsync and fdatasync below the root takes this much longer
 *                   fail=/replica/a        those whose path contains this text answer EIO and sync nothing; may be repeated
 *                   lie=/replica/a         those answer 0 and count for nothing; it shows that a test would notice
 *
 * The journal has one line for each event, appended in one write:
 *   S <device> <inode> <length>   a sync of this file returned; all of its first <length> bytes are safe
 *   T <device> <inode> <length>   from <length> on, the file may differ from what is on the disk (it was created empty,
 *                                 truncated, or overwritten in place)
 * A file is known by device and inode, so a rename needs no line, and neither does an unlink: an inode that is used anew
 * begins with T 0. A length is taken before the real sync starts: what is written while it runs may have missed it.
 *
 * Stricter than a disk: data that reached it by itself counts as lost; sync_file_range, which promises nothing, counts for
 * nothing; a file that is overwritten in place loses all behind the first changed byte. Milder: names (creation, rename,
 * removal) count as safe at once. Writes through a memory map or io_uring are not seen; RocksDB as we use it makes none.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 65536 /* a power of two; files seen in one run, far more than a test makes */

struct seen {
    uint64_t device, inode;
    int64_t safe; /* no byte before this one has changed since the last line we wrote about this file */
    char used, inside;
};

static struct seen files[FILES_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[4096], control[4096];
static size_t root_length;
static int journal = -1;

/* --- The real functions ------------------------------------------------------------------------------------------- */

#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, open64, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(int, openat64, int, const char *, int, ...);
REAL(int, creat, const char *, mode_t);
REAL(int, creat64, const char *, mode_t);
REAL(FILE *, fopen, const char *, const char *);
REAL(FILE *, fopen64, const char *, const char *);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t);
REAL(int, ftruncate, int, off_t);
REAL(int, ftruncate64, int, off64_t);
REAL(int, fallocate, int, int, off_t, off_t);
REAL(int, fallocate64, int, int, off64_t, off64_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);

/* Other constructors may write before ours has run, so every function looks its original up when it needs it. */
#define FIND(name) do { if (!real_##name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name); } while (0)

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("SHIM_ROOT");
    if (!text || strlen(text) >= sizeof root) return;
    strcpy(root, text);
    root_length = strlen(root);
    text = getenv("SHIM_CONTROL");
    if (text && strlen(text) < sizeof control) strcpy(control, text);
    text = getenv("SHIM_JOURNAL");
    if (text) journal = (int)syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (text && journal < 0) { /* a shim that remembers nothing would let every test pass */
        static const char words[] = "shim: the journal cannot be opened\n";
        if (syscall(SYS_write, 2, words, sizeof words - 1) < 0) { /* nobody to tell */ }
        _exit(99);
    }
}

/* --- What is known of a file -------------------------------------------------------------------------------------- */

static void note(char what, const struct seen *file, int64_t length) {
    char line[96];
    int size = snprintf(line, sizeof line, "%c %llu %llu %lld\n", what, (unsigned long long)file->device,
                        (unsigned long long)file->inode, (long long)length);
    if (journal >= 0 && syscall(SYS_write, journal, line, (size_t)size) != size) abort();
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return 1;
}

static int is_inside(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The entry of a regular file, with the lock held; NULL for what is not watched. */
static struct seen *entry(int fd, const struct stat *about, int fresh) {
    if (!root_length || !S_ISREG(about->st_mode)) return NULL;
    uint64_t place = (about->st_ino * 0x9E3779B97F4A7C15u ^ about->st_dev) >> 32;
    for (int step = 0; step < FILES_MAX; step++) {
        struct seen *file = &files[(place + (uint64_t)step) % FILES_MAX];
        int known = file->used && file->inode == about->st_ino && file->device == about->st_dev;
        if (file->used && !known) continue;
        if (!known || fresh) { /* an inode may have been used anew, elsewhere */
            char path[4096];
            *file = (struct seen){.device = about->st_dev, .inode = about->st_ino, .safe = INT64_MAX, .used = 1};
            file->inside = path_of(fd, path, sizeof path) && is_inside(path);
        }
        return file->inside ? file : NULL;
    }
    abort(); /* more files than the table holds: better no result than a wrong one */
}

/* Bytes from `from` on are about to change. Said before the change, so that a kill in between errs on the strict side. */
static void changes(int fd, int64_t from) {
    struct stat about;
    int kept = errno;
    if (root_length && fd != journal && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        pthread_mutex_lock(&lock);
        struct seen *file = entry(fd, &about, 0);
        if (file) {
            int64_t at = from >= 0 ? from : fcntl(fd, F_GETFL) & O_APPEND ? about.st_size : lseek(fd, 0, SEEK_CUR);
            if (at < file->safe) {
                file->safe = at;
                note('T', file, at);
            }
        }
        pthread_mutex_unlock(&lock);
    }
    errno = kept;
}

static int opened(int fd) {
    struct stat about;
    int kept = errno;
    if (fd >= 0 && root_length && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        pthread_mutex_lock(&lock);
        struct seen *file = entry(fd, &about, 1);
        if (file && about.st_size == 0) {
            file->safe = 0;
            note('T', file, 0);
        }
        pthread_mutex_unlock(&lock);
    }
    errno = kept;
    return fd;
}

/* --- Syncing ------------------------------------------------------------------------------------------------------ */

enum order { SYNC, FAIL, LIE };

/* Reads the control file: how long to wait, and what to do with this path. */
static enum order ordered(const char *path, long *delay_ms) {
    char text[8192];
    *delay_ms = 0;
    if (!control[0]) return SYNC;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return SYNC;
    long size = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[size > 0 ? size : 0] = 0;
    enum order order = SYNC;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (!strncmp(line, "delay_ms=", 9)) *delay_ms = atol(line + 9);
        if (!strncmp(line, "fail=", 5) && line[5] && strstr(path, line + 5)) order = FAIL;
        if (!strncmp(line, "lie=", 4) && line[4] && strstr(path, line + 4)) order = LIE;
    }
    return order;
}

static int synced(int fd, int (*real)(int)) {
    char path[4096] = "";
    struct stat before;
    long delay_ms;
    if (!root_length || fstat(fd, &before) != 0 || !path_of(fd, path, sizeof path) || !is_inside(path)) return real(fd);
    enum order order = ordered(path, &delay_ms);
    if (delay_ms > 0) {
        struct timespec pause = {delay_ms / 1000, delay_ms % 1000 * 1000000};
        while (nanosleep(&pause, &pause) != 0 && errno == EINTR) { /* the whole of it */ }
    }
    if (order == FAIL) {
        errno = EIO;
        return -1;
    }
    if (order == LIE) return 0;
    int result = real(fd);
    if (result == 0 && S_ISREG(before.st_mode)) {
        pthread_mutex_lock(&lock);
        struct seen *file = entry(fd, &before, 0);
        if (file) {
            file->safe = before.st_size;
            note('S', file, before.st_size);
        }
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int fsync(int fd) { FIND(fsync); return synced(fd, real_fsync); }
int fdatasync(int fd) { FIND(fdatasync); return synced(fd, real_fdatasync); }

/* --- Opening ------------------------------------------------------------------------------------------------------ */

#define MODE_OF(flags, mode) \
    mode_t mode = 0; \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE_OF(flags, mode) FIND(open); return opened(real_open(path, flags, mode)); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, mode) FIND(open64); return opened(real_open64(path, flags, mode)); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) FIND(openat); return opened(real_openat(at, path, flags, mode)); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) FIND(openat64); return opened(real_openat64(at, path, flags, mode)); }
int creat(const char *path, mode_t mode) { FIND(creat); return opened(real_creat(path, mode)); }
int creat64(const char *path, mode_t mode) { FIND(creat64); return opened(real_creat64(path, mode)); }

FILE *fopen(const char *path, const char *how) {
    FIND(fopen);
    FILE *file = real_fopen(path, how);
    if (file) opened(fileno(file));
    return file;
}

FILE *fopen64(const char *path, const char *how) {
    FIND(fopen64);
    FILE *file = real_fopen64(path, how);
    if (file) opened(fileno(file));
    return file;
}

/* --- Writing ------------------------------------------------------------------------------------------------------ */

ssize_t write(int fd, const void *bytes, size_t count) { FIND(write); changes(fd, -1); return real_write(fd, bytes, count); }
ssize_t writev(int fd, const struct iovec *parts, int count) { FIND(writev); changes(fd, -1); return real_writev(fd, parts, count); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { FIND(pwrite); changes(fd, at); return real_pwrite(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { FIND(pwrite64); changes(fd, at); return real_pwrite64(fd, bytes, count, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { FIND(pwritev); changes(fd, at); return real_pwritev(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { FIND(pwritev64); changes(fd, at); return real_pwritev64(fd, parts, count, at); }
int ftruncate(int fd, off_t length) { FIND(ftruncate); changes(fd, length); return real_ftruncate(fd, length); }
int ftruncate64(int fd, off64_t length) { FIND(ftruncate64); changes(fd, length); return real_ftruncate64(fd, length); }

/* By path: through a descriptor of our own, so that there is one way only. */
static int cut_path(const char *path, off64_t length) {
    FIND(ftruncate64);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    changes(fd, length);
    int result = real_ftruncate64(fd, length), kept = errno;
    syscall(SYS_close, fd);
    errno = kept;
    return result;
}
int truncate(const char *path, off_t length) { return cut_path(path, length); }
int truncate64(const char *path, off64_t length) { return cut_path(path, length); }

/* Reserving room changes no byte; punching, zeroing and moving do. */
int fallocate(int fd, int mode, off_t from, off_t length) {
    FIND(fallocate);
    if (mode & ~FALLOC_FL_KEEP_SIZE) changes(fd, from);
    return real_fallocate(fd, mode, from, length);
}
int fallocate64(int fd, int mode, off64_t from, off64_t length) {
    FIND(fallocate64);
    if (mode & ~FALLOC_FL_KEEP_SIZE) changes(fd, from);
    return real_fallocate64(fd, mode, from, length);
}
