/* A disk that fails on demand: preloaded, it stands between a program and its writes.
 *
 * Only files below $DISK_FAULTS_DIR are touched. What to do is read from a file that the test shares
 * with the program ($DISK_FAULTS_CONTROL), so that a disk can fail and heal while a server runs.
 * With $DISK_FAULTS_DURABLE every file is copied there when it is synced: what would be left if the
 * power went, and nothing more.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SOUND, FAIL_SYNCS, FAIL_WRITES, DELAY_SYNCS, KILL_AT, FAIL_AT };

struct control {
  volatile int64_t mode, value, at, count;
};

static struct control *control;
static const char *below, *durable;

static void look(void) {
  if (control) return;
  below = getenv("DISK_FAULTS_DIR");
  durable = getenv("DISK_FAULTS_DURABLE");
  int fd = (int)open(getenv("DISK_FAULTS_CONTROL"), O_RDWR | O_CLOEXEC);
  control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || control == MAP_FAILED) abort();
  close(fd);
}

static int concerns_path(const char *path) {
  look();
  return strncmp(path, below, strlen(below)) == 0;
}

static int path_of(int fd, char *path, size_t size) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, size - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return 1;
}

static int concerns(int fd) {
  char path[4096];
  return path_of(fd, path, sizeof path) && concerns_path(path);
}

/* Returns the error that this call has to fail with, or 0. */
static int fault(int is_sync) {
  int64_t count = ++control->count;
  switch (control->mode) {
    case FAIL_SYNCS:
      return is_sync ? (int)control->value : 0;
    case FAIL_WRITES:
      return is_sync ? 0 : (int)control->value;
    case DELAY_SYNCS:
      if (is_sync) {
        struct timespec pause = {control->value / 1000, control->value % 1000 * 1000000};
        nanosleep(&pause, NULL);
      }
      return 0;
    case KILL_AT:
      if (count == control->at) kill(getpid(), SIGKILL);
      return 0;
    case FAIL_AT:
      return count == control->at ? (int)control->value : 0;
  }
  return 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A file that is gone stays gone once its directory is synced. */
static void forget(const char *directory) {
  char path[8192];
  DIR *copies = opendir(durable);
  for (struct dirent *copy; (copy = readdir(copies));) {
    snprintf(path, sizeof path, "%s/%s", directory, copy->d_name);
    if (access(path, F_OK) == 0) continue;
    snprintf(path, sizeof path, "%s/%s", durable, copy->d_name);
    NEXT(unlink)(path);
  }
  closedir(copies);
}

static void keep(int fd) {
  char path[4096], copy[8192], block[65536];
  struct stat status;
  if (!durable || !path_of(fd, path, sizeof path) || fstat(fd, &status)) return;
  if (S_ISDIR(status.st_mode)) {
    forget(path);
    return;
  }
  snprintf(copy, sizeof copy, "%s/%s", durable, strrchr(path, '/') + 1);
  int from = open(path, O_RDONLY), to = open(copy, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ssize_t length;
  while ((length = read(from, block, sizeof block)) > 0)
    if (NEXT(write)(to, block, (size_t)length) != length) abort();
  close(from);
  close(to);
}

#define SYNC(name)                                   \
  int name(int fd) {                                 \
    if (!concerns(fd)) return NEXT(name)(fd);        \
    int error = fault(1);                            \
    if (error) return errno = error, -1;             \
    int result = NEXT(name)(fd);                     \
    if (result == 0) keep(fd);                       \
    return result;                                   \
  }

SYNC(fsync)
SYNC(fdatasync)

/* A write that the program does not survive is torn: half of it is done. */
static void tear(int fd, const void *data, size_t size, off_t offset) {
  if (control->mode == KILL_AT && control->count + 1 == control->at)
    if (NEXT(pwrite)(fd, data, size / 2, offset) < 0) abort();
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
  if (!concerns(fd)) return NEXT(pwrite)(fd, data, size, offset);
  tear(fd, data, size, offset);
  int error = fault(0);
  return error ? (errno = error, -1) : NEXT(pwrite)(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
  return pwrite(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size) {
  if (!concerns(fd)) return NEXT(write)(fd, data, size);
  int error = fault(0);
  return error ? (errno = error, -1) : NEXT(write)(fd, data, size);
}

#define TRUNCATE(name, type)                                 \
  int name(int fd, type size) {                              \
    if (!concerns(fd)) return NEXT(name)(fd, size);          \
    int error = fault(0);                                    \
    return error ? (errno = error, -1) : NEXT(name)(fd, size); \
  }

TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int unlink(const char *path) {
  if (!concerns_path(path)) return NEXT(unlink)(path);
  int error = fault(0);
  return error ? (errno = error, -1) : NEXT(unlink)(path);
}

int rename(const char *from, const char *to) {
  if (!concerns_path(from)) return NEXT(rename)(from, to);
  int error = fault(0);
  return error ? (errno = error, -1) : NEXT(rename)(from, to);
}
