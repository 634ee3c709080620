/* Mapping the node state, its lock, and its wake-ups. */
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND 1000000000ull

static struct node *map(int descriptor)
{
    void *address =
        mmap(NULL, sizeof(struct node), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    int error = errno;
    close(descriptor);
    errno = error;
    return address == MAP_FAILED ? NULL : address;
}

static void prepare_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

struct node *node_create(const char *path)
{
    int descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor < 0)
        return NULL;
    /* Clients of any user may map it, as any user may open a GPU. The umask must not decide. */
    if (fchmod(descriptor, 0666) < 0 || ftruncate(descriptor, sizeof(struct node)) < 0) {
        close(descriptor);
        return NULL;
    }
    struct node *node = map(descriptor);
    if (!node)
        return NULL;
    prepare_lock(&node->lock);
    node->size = sizeof *node;
    node->layout = NODE_LAYOUT;
    node->driver_epoch = node->oldest_epoch = node->sets_epoch = 1;
    /* Last: a file without it is not opened. */
    __atomic_store_n(&node->magic, NODE_MAGIC, __ATOMIC_RELEASE);
    return node;
}

struct node *node_open(const char *path)
{
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (descriptor < 0)
        return NULL;
    if (fstat(descriptor, &status) < 0 || status.st_size != sizeof(struct node)) {
        close(descriptor);
        errno = EPROTO;
        return NULL;
    }
    struct node *node = map(descriptor);
    if (!node)
        return NULL;
    if (__atomic_load_n(&node->magic, __ATOMIC_ACQUIRE) != NODE_MAGIC ||
        node->layout != NODE_LAYOUT || node->size != sizeof *node) {
        node_close(node);
        errno = EPROTO;
        return NULL;
    }
    return node;
}

void node_close(struct node *node)
{
    munmap(node, sizeof *node);
}

void node_lock(struct node *node)
{
    /* The state is usable after the owner's death at any point: every field is valid by itself,
     * and an event counts only once event_count says so. */
    if (pthread_mutex_lock(&node->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&node->lock);
}

void node_unlock(struct node *node)
{
    pthread_mutex_unlock(&node->lock);
}

void node_changed(struct node *node)
{
    __atomic_add_fetch(&node->change, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &node->change, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint32_t node_change(const struct node *node)
{
    return __atomic_load_n(&node->change, __ATOMIC_ACQUIRE);
}

uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

void node_wait(struct node *node, uint32_t seen, uint64_t until_ns)
{
    /* FUTEX_WAIT_BITSET takes an absolute time on the monotonic clock. */
    struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_SECOND),
                             .tv_nsec = (long)(until_ns % NS_PER_SECOND)};
    syscall(SYS_futex, &node->change, FUTEX_WAIT_BITSET, seen, until_ns ? &until : NULL, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

int node_index_of(const struct node *node, uint32_t slot)
{
    for (uint32_t index = 0; index < node->gpu_count; index++)
        if (node->order[index] == slot)
            return (int)index;
    return -1;
}
