/* The simulated node: one struct in a file that every client and every control process maps.
 *
 * All of it is read and written under `lock`, which survives the death of its owner. Whoever
 * changes something bumps `change`, a futex word, and wakes all that wait on it: waits for events
 * and hanging calls sleep there.
 */
#ifndef FAKE_NVML_NODE_H
#define FAKE_NVML_NODE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "signals.h"

#define NODE_MAGIC 0x4c4d564eu /* "NVML" */
#define NODE_LAYOUT 1u         /* raise it whenever a struct in this file or signals.h changes */
#define MAX_GPUS 16
#define MAX_FAULTS 64
#define MAX_MIG 8
#define MAX_EVENTS 4096
#define HANDLES 64
#define ANY_GPU (-1)
#define FOREVER (-1)

/* No switch turns these off: nothing simulated passes for hardware. */
#define SIMULATED_NAME " (SIMULATED)"
#define SIMULATED_VERSION "-SIMULATED"

struct mig_device {
    uint32_t exists;
    uint32_t gpu_instance, compute_instance;
    uint32_t slices, multiprocessors;
    uint64_t memory_mb;
    char profile[16]; /* 1g.10gb */
    char uuid[48];
    uint32_t incarnation;
    char handles[HANDLES]; /* addresses only: one per incarnation, so that old handles turn stale */
};

struct device {
    char name[96], uuid[48], serial[32], bus_id[32];
    uint8_t cluster_uuid[16];
    uint32_t lost;         /* the error every call on it returns; 0 = reachable */
    uint32_t registration; /* events reach only registrations made at this count */
    uint32_t incarnation;
    char handles[HANDLES];
    int64_t values[SIGNAL_COUNT][MAX_LINKS];
    struct mig_device mig[MAX_MIG];
};

struct event {
    uint64_t type, data;
    uint32_t gpu, incarnation, registration;
    uint32_t gpu_instance, compute_instance;
    uint32_t padding;
};

enum fault_kind { NO_FAULT, HANG, FAIL, SLOW };

struct fault {
    uint32_t kind;
    int32_t gpu;        /* or ANY_GPU */
    char function[64];  /* or empty: every function */
    int64_t remaining;  /* FAIL: how often still, or FOREVER */
    uint64_t until_ns;  /* HANG: when it ends by itself, or 0 */
    uint32_t error;     /* FAIL */
    uint32_t millis;    /* SLOW */
};

struct node {
    uint32_t magic, layout;
    uint64_t size;
    pthread_mutex_t lock;
    uint32_t change;
    uint32_t driver_epoch; /* one more for every load; initialisations of older ones are void */
    uint32_t oldest_epoch; /* processes that loaded the library before it cannot initialise again */
    uint32_t sets_epoch;   /* event sets created before it are dead */
    char model[32], seed[64]; /* what it was made from */
    char driver_version[80], nvml_version[80];
    int32_t cuda_version;
    uint32_t slot_count;       /* slots ever used; a GPU keeps its slot for life */
    uint32_t gpu_count;        /* GPUs enumerated */
    uint32_t order[MAX_GPUS];  /* NVML index -> slot */
    uint64_t event_count;      /* events ever injected; number n is in events[n % MAX_EVENTS] */
    struct event events[MAX_EVENTS];
    struct fault faults[MAX_FAULTS];
    struct device devices[MAX_GPUS];
};

/* NULL with errno set: ENOENT and the like, EPROTO for a file of another layout. */
struct node *node_create(const char *path);
struct node *node_open(const char *path);
void node_close(struct node *node);

void node_lock(struct node *node);
void node_unlock(struct node *node);
void node_changed(struct node *node); /* call with the lock held */

/* Sleeps until `change` differs from `seen` or the monotonic clock passes `until_ns` (0: never).
 * May return early. */
void node_wait(struct node *node, uint32_t seen, uint64_t until_ns);
uint32_t node_change(const struct node *node);
uint64_t monotonic_ns(void);

/* NVML index of a slot, or -1 when that GPU is not enumerated. */
int node_index_of(const struct node *node, uint32_t slot);

#endif
