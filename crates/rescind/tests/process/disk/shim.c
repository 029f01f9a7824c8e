/* Stands between the server and the files under one folder, preloaded by disk/mod.rs.
 *
 *   DISK_ROOT   the folder
 *   DISK_LOG    where to write down, in one order, what is done to its files and what is sent to callers.
 *               Nothing is really flushed then: what a flush means is for the reader of the log to say
 *   DISK_FAULT  a file of one byte that says how the disk fails at this moment
 *
 * Contents are seen by interposing; names by looking into the folder at every event, so that system calls
 * that do not come through libc are seen too. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))
#define FDS 4096
#define SENT_BYTES 2048

enum { UNKNOWN, OURS, SOCKET, OTHER };

static const char *root;
static int log_fd = -1;
static volatile char *fault;
static char healthy = '-';
static unsigned char kinds[FDS];
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void start(void) {
    root = getenv("DISK_ROOT");
    const char *log = getenv("DISK_LOG"), *control = getenv("DISK_FAULT");
    fault = &healthy;
    if (log) log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (control) {
        int fd = syscall(SYS_openat, AT_FDCWD, control, O_RDWR | O_CLOEXEC, 0);
        fault = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        syscall(SYS_close, fd);
    }
    if (!root || (log && log_fd < 0) || fault == MAP_FAILED) abort();
}

static int under_root(const char *path) {
    size_t length = strlen(root);
    return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* ---- The log: a header, then `length` bytes. disk/log.rs reads it. ---- */

struct header {
    uint32_t what, length;
    uint64_t inode, offset;
};

static void put(char what, uint64_t inode, uint64_t offset, const void *bytes, size_t length) {
    struct header header = {what, length, inode, offset};
    struct iovec parts[] = {{&header, sizeof header}, {(void *)bytes, length}};
    if (syscall(SYS_writev, log_fd, parts, 2) != (long)(sizeof header + length)) abort();
}

/* One line a name: inode, kind, name. */
static void list(const char *path, char (*before)[16384]) {
    char now[16384];
    size_t used = 0;
    struct stat folder;
    DIR *entries = opendir(path);
    if (!entries) return;
    fstat(dirfd(entries), &folder);
    for (struct dirent *e; (e = readdir(entries));)
        if (e->d_name[0] != '.' || (e->d_name[1] && e->d_name[1] != '.'))
            used += snprintf(now + used, sizeof now - used, "%lu %d %s\n", e->d_ino, e->d_type, e->d_name);
    closedir(entries);
    if (used >= sizeof now) abort();
    now[used] = 0;
    if (strcmp(now, *before)) put('D', folder.st_ino, 0, now, used);
    strcpy(*before, now);
}

static void look(void) {
    static char above[16384], inside[16384];
    char data[4096];
    snprintf(data, sizeof data, "%s/data", root);
    list(root, &above);
    list(data, &inside);
}

/* What a descriptor is; the log is told of an empty file when it is first met. */
static int kind(int fd) {
    if (fd < 0 || fd >= FDS) return OTHER;
    if (kinds[fd] != UNKNOWN) return kinds[fd];
    struct stat file;
    char link[64], path[4096];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    if (fstat(fd, &file)) return OTHER;
    if (S_ISSOCK(file.st_mode)) kinds[fd] = SOCKET;
    else kinds[fd] = under_root(path) ? OURS : OTHER;
    if (kinds[fd] == OURS && S_ISREG(file.st_mode) && !file.st_size && log_fd >= 0)
        put('N', file.st_ino, 0, NULL, 0);
    errno = saved;
    return kinds[fd];
}

static uint64_t inode(int fd) {
    struct stat file;
    return fstat(fd, &file) ? 0 : file.st_ino;
}

/* ---- Faults: a small letter lasts, a capital one strikes once. ---- */

static int fails(const char *modes, int error) {
    char mode = *fault;
    if (mode == '-' || !strchr(modes, mode)) return 0;
    if (mode >= 'A' && mode <= 'Z') *fault = '-';
    errno = error;
    return 1;
}

static int write_fails(void) {
    return fails("f", ENOSPC) || fails("r", EROFS) || fails("wWi", EIO);
}

/* ---- What the server calls ---- */

static ssize_t written(int fd, uint64_t offset, const void *bytes, ssize_t length) {
    if (length > 0 && log_fd >= 0) {
        look();
        put('W', inode(fd), offset, bytes, length);
    }
    return length;
}

#define WRITE(fd, at, bytes, call)                                                                           \
    pthread_mutex_lock(&order);                                                                              \
    uint64_t offset = at;                                                                                    \
    ssize_t length = write_fails() ? -1 : written(fd, offset, bytes, call);                                  \
    pthread_mutex_unlock(&order);                                                                            \
    return length

/* Written down before it is sent: whatever is durable later than this may be missed. */
static void sent(int fd, const void *bytes, size_t length) {
    if (log_fd < 0 || kind(fd) != SOCKET) return;
    pthread_mutex_lock(&order);
    look();
    put('A', 0, 0, bytes, length < SENT_BYTES ? length : SENT_BYTES);
    pthread_mutex_unlock(&order);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (kind(fd) == OURS) {
        WRITE(fd, (uint64_t)lseek(fd, 0, SEEK_CUR), bytes, REAL(write)(fd, bytes, count));
    }
    sent(fd, bytes, count);
    return REAL(write)(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    if (kind(fd) != OURS) return REAL(pwrite64)(fd, bytes, count, at);
    WRITE(fd, (uint64_t)at, bytes, REAL(pwrite64)(fd, bytes, count, at));
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (kind(fd) == OURS) abort(); /* Nobody does; it would be missed. */
    if (log_fd >= 0 && kind(fd) == SOCKET) {
        char all[SENT_BYTES];
        size_t used = 0;
        for (int i = 0; i < count && used < sizeof all; i++) {
            size_t fits = parts[i].iov_len < sizeof all - used ? parts[i].iov_len : sizeof all - used;
            memcpy(all + used, parts[i].iov_base, fits);
            used += fits;
        }
        sent(fd, all, used);
    }
    return REAL(writev)(fd, parts, count);
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    sent(fd, bytes, count);
    return REAL(send)(fd, bytes, count, flags);
}

int ftruncate64(int fd, off64_t size) {
    if (kind(fd) != OURS) return REAL(ftruncate64)(fd, size);
    pthread_mutex_lock(&order);
    int result = write_fails() ? -1 : REAL(ftruncate64)(fd, size);
    if (!result && log_fd >= 0) {
        look();
        put('T', inode(fd), size, NULL, 0);
    }
    pthread_mutex_unlock(&order);
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* SQLite's write-ahead log. */
static int is_log(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && !strncmp(path + length - 4, "-wal", 4);
}

static int flush(int fd, int (*really)(int)) {
    if (kind(fd) != OURS) return really(fd);
    pthread_mutex_lock(&order);
    if (*fault == 'l') nanosleep(&(struct timespec){0, 200 * 1000 * 1000}, NULL);
    int failed = fails("r", EROFS) || fails("sSi", EIO) || (!is_log(fd) && fails("d", EIO));
    int result = failed ? -1 : 0;
    if (log_fd >= 0) {
        look();
        put(failed ? 'F' : 'S', inode(fd), 0, NULL, 0);
    } else if (!failed) {
        result = really(fd);
    }
    pthread_mutex_unlock(&order);
    return result;
}

int fsync(int fd) { return flush(fd, REAL(fsync)); }
int fdatasync(int fd) { return flush(fd, REAL(fdatasync)); }

ssize_t read(int fd, void *bytes, size_t count) {
    if (*fault == 'i' && kind(fd) == OURS && fails("i", EIO)) return -1;
    return REAL(read)(fd, bytes, count);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    if (*fault == 'i' && kind(fd) == OURS && fails("i", EIO)) return -1;
    return REAL(pread64)(fd, bytes, count, at);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t at) { return pread64(fd, bytes, count, at); }

static int open_fails(const char *path, int flags) {
    if (*fault == '-' || !under_root(path)) return 0;
    return (flags & (O_WRONLY | O_RDWR | O_CREAT) && fails("r", EROFS)) || fails("i", EIO);
}

static int mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; }

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = mode_of(flags, rest);
    va_end(rest);
    return open_fails(path, flags) ? -1 : REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = mode_of(flags, rest);
    va_end(rest);
    return open_fails(path, flags) ? -1 : REAL(open)(path, flags, mode);
}

int unlink(const char *path) {
    if (under_root(path) && (fails("r", EROFS) || fails("i", EIO))) return -1;
    return REAL(unlink)(path);
}

int close(int fd) {
    if (fd >= 0 && fd < FDS) kinds[fd] = UNKNOWN;
    return REAL(close)(fd);
}
