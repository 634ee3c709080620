/* One call of a client into NVML: what every function does before and after its own work.
 *
 *     struct call call = {.function = __func__};
 *     if (begin_device(&call, handle))
 *         call.result = ...;          // the node lock is held here
 *     return end(&call);
 */
#ifndef FAKE_NVML_CALL_H
#define FAKE_NVML_CALL_H

#include "node.h"
#include "nvml.h"

struct call {
    const char *function;
    nvmlReturn_t result;
    struct node *node;
    struct device *device;
    struct mig_device *mig; /* set when the handle is a MIG device's */
    bool delayed;           /* a slow call sleeps once */
};

/* Each returns whether the function may go on; if not, `result` says why. `end` either way. */
bool begin(struct call *call);
bool begin_device(struct call *call, nvmlDevice_t handle);         /* a GPU only */
bool begin_any_device(struct call *call, nvmlDevice_t handle);     /* a GPU or a MIG device */
bool begin_uninitialized(struct call *call);
/* For look-ups: applies the faults of the device that was found. */
bool touch(struct call *call, struct device *device);
nvmlReturn_t end(struct call *call);

nvmlDevice_t handle_of(struct device *device);
nvmlDevice_t mig_handle_of(struct mig_device *mig);

/* Initialisations of this process that the present driver still honours; under the node lock. */
void count_initialization(struct node *node);
void count_shutdown(struct node *node);
bool driver_was_replaced(const struct node *node);

nvmlReturn_t put_uint(unsigned int *out, int64_t value);
/* All values or none. */
nvmlReturn_t put_uints(unsigned int *const *out, const int64_t *values, int count);
nvmlReturn_t put_u64(unsigned long long *out, int64_t value);
nvmlReturn_t put_string(char *out, unsigned int length, const char *text);
/* The sum of a row's supported elements; UNSUPPORTED when there are none. */
int64_t row_sum(const struct device *device, enum signal signal);

#endif
