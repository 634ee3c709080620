/* What changes the node. Exported by libfake_nvml.so for the command line and for tests.
 *
 * Functions return 0 (or a number of use) or a negative errno: -ENOENT no such GPU, signal or MIG
 * device; -EINVAL a value out of range; -ENOSPC a table is full; -EALREADY nothing to change.
 * `gpu` is a slot: the GPU's place in the node when it was made, kept for life. */
#ifndef FAKE_NVML_CONTROL_H
#define FAKE_NVML_CONTROL_H

#include "node.h"

#define CONTROL_API __attribute__((visibility("default")))

/* Copies of what names things; control.py has the same structs. */
struct node_identity {
    char model[32], seed[64], driver_version[80], nvml_version[80];
    int32_t cuda_version;
    int32_t gpus, enumerated;
};

struct gpu_identity {
    char name[96], uuid[48], serial[32], bus_id[32];
    int32_t index; /* NVML's, or -1 when removed */
    uint32_t lost;
    uint32_t board; /* boards that were in this place before */
};

struct mig_identity {
    uint32_t exists, gpu_instance, compute_instance, slices, multiprocessors;
    uint64_t memory_mb;
    char profile[16];
    char uuid[48];
};

/* Releases the lock, after waking whoever waits for a change if there was one. */
int finish(struct node *node, int result);
/* NULL for a slot never used. */
struct device *find_device(struct node *node, int32_t gpu);
bool copy_text(char *out, size_t size, const char *text, const char *mark);
/* Puts a GPU into the enumeration at `index`, or last for -1. */
void enumerate(struct node *node, uint32_t gpu, int32_t index);
void drop_from_enumeration(struct node *node, uint32_t gpu);
void clear_mig_devices(struct device *device);
void add_event(struct node *node, int32_t gpu, struct event event);

#endif
