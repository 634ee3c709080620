/* Handles, faults and errors that are the same for every NVML function. */
#include "call.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t mapping = PTHREAD_MUTEX_INITIALIZER;
static struct node *mapped;
static uint32_t loaded_epoch; /* the driver this process found when it loaded the library */
static uint32_t initialized_epoch;
static uint32_t initializations;

/* The state file lies beside the library unless FAKE_NVML_STATE names another one. */
static bool state_path(char path[PATH_MAX])
{
    const char *override = getenv("FAKE_NVML_STATE");
    Dl_info self;
    if (override)
        return snprintf(path, PATH_MAX, "%s", override) < PATH_MAX;
    if (!dladdr(&mapping, &self))
        return false;
    const char *slash = strrchr(self.dli_fname, '/');
    int directory = slash ? (int)(slash - self.dli_fname) : 0;
    return snprintf(path, PATH_MAX, "%.*s/fake-nvml.state", directory, self.dli_fname) < PATH_MAX;
}

static struct node *map_node(void)
{
    char path[PATH_MAX];
    pthread_mutex_lock(&mapping);
    if (!mapped && state_path(path)) {
        mapped = node_open(path);
        if (mapped)
            loaded_epoch = mapped->driver_epoch;
        else
            fprintf(stderr, "fake-nvml: cannot use %s: %s\n", path,
                    errno == EPROTO ? "it was made by another version of fake-nvml"
                                    : strerror(errno));
    }
    pthread_mutex_unlock(&mapping);
    return mapped;
}

void count_initialization(struct node *node)
{
    if (initialized_epoch != node->driver_epoch)
        initializations = 0;
    initialized_epoch = node->driver_epoch;
    initializations++;
}

void count_shutdown(struct node *node)
{
    if (initialized_epoch == node->driver_epoch && initializations > 0)
        initializations--;
}

bool driver_was_replaced(const struct node *node)
{
    return loaded_epoch < node->oldest_epoch;
}

static bool is_initialized(const struct node *node)
{
    return initializations > 0 && initialized_epoch == node->driver_epoch;
}

nvmlDevice_t handle_of(struct device *device)
{
    return (nvmlDevice_t)&device->handles[device->incarnation % HANDLES];
}

nvmlDevice_t mig_handle_of(struct mig_device *mig)
{
    return (nvmlDevice_t)&mig->handles[mig->incarnation % HANDLES];
}

static nvmlReturn_t resolve(struct call *call, nvmlDevice_t handle)
{
    const char *address = (const char *)handle;
    for (uint32_t slot = 0; slot < call->node->slot_count; slot++) {
        struct device *device = &call->node->devices[slot];
        if (address >= device->handles && address < device->handles + HANDLES) {
            call->device = device;
            return handle == handle_of(device) ? NVML_SUCCESS : NVML_ERROR_GPU_IS_LOST;
        }
        for (int i = 0; i < MAX_MIG; i++) {
            struct mig_device *mig = &device->mig[i];
            if (mig->exists && handle == mig_handle_of(mig)) {
                call->device = device;
                call->mig = mig;
                return NVML_SUCCESS;
            }
        }
    }
    return NVML_ERROR_INVALID_ARGUMENT;
}

/* A fault for nvmlEventSetWait also means nvmlEventSetWait_v2. */
static bool names(const char *wanted, const char *function)
{
    size_t length = strlen(wanted);
    if (length == 0)
        return true;
    if (strncmp(wanted, function, length) != 0)
        return false;
    return function[length] == '\0' || strncmp(function + length, "_v", 2) == 0;
}

static struct fault *find_fault(struct call *call, enum fault_kind kind)
{
    int slot = call->device ? (int)(call->device - call->node->devices) : ANY_GPU;
    for (int i = 0; i < MAX_FAULTS; i++) {
        struct fault *fault = &call->node->faults[i];
        if (fault->kind == kind && (fault->gpu == ANY_GPU || fault->gpu == slot) &&
            names(fault->function, call->function))
            return fault;
    }
    return NULL;
}

static void hang(struct call *call, struct fault *fault)
{
    uint32_t seen = node_change(call->node);
    uint64_t until = fault->until_ns;
    if (until && monotonic_ns() >= until) {
        fault->kind = NO_FAULT;
        return;
    }
    node_unlock(call->node);
    node_wait(call->node, seen, until);
    node_lock(call->node);
}

static void delay(struct call *call, uint32_t millis)
{
    struct timespec pause = {.tv_sec = millis / 1000, .tv_nsec = millis % 1000 * 1000000L};
    call->delayed = true;
    node_unlock(call->node);
    while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
        continue;
    node_lock(call->node);
}

static bool apply_faults(struct call *call)
{
    struct fault *fault;
    while ((fault = find_fault(call, HANG)))
        hang(call, fault);
    if (!call->delayed && (fault = find_fault(call, SLOW)))
        delay(call, fault->millis);
    if ((fault = find_fault(call, FAIL))) {
        call->result = (nvmlReturn_t)fault->error;
        if (fault->remaining != FOREVER && --fault->remaining == 0)
            fault->kind = NO_FAULT;
    }
    return call->result == NVML_SUCCESS;
}

static bool check_reachable(struct call *call)
{
    if (call->device->lost)
        call->result = (nvmlReturn_t)call->device->lost;
    else if (node_index_of(call->node, (uint32_t)(call->device - call->node->devices)) < 0)
        call->result = NVML_ERROR_GPU_IS_LOST;
    return call->result == NVML_SUCCESS;
}

static bool lock_node(struct call *call)
{
    call->result = NVML_SUCCESS;
    call->device = NULL;
    call->mig = NULL;
    call->node = map_node();
    if (call->node)
        node_lock(call->node);
    return call->node != NULL;
}

bool begin_uninitialized(struct call *call)
{
    if (!lock_node(call)) {
        call->result = NVML_ERROR_DRIVER_NOT_LOADED;
        return false;
    }
    return apply_faults(call);
}

static bool lock_initialized_node(struct call *call)
{
    if (!lock_node(call) || !is_initialized(call->node))
        call->result = NVML_ERROR_UNINITIALIZED;
    return call->result == NVML_SUCCESS;
}

bool begin(struct call *call)
{
    return lock_initialized_node(call) && apply_faults(call);
}

bool begin_any_device(struct call *call, nvmlDevice_t handle)
{
    if (!lock_initialized_node(call))
        return false;
    resolve(call, handle);
    if (!apply_faults(call))
        return false;
    /* Again, since the call may have slept: the GPU can be another one and the driver too. */
    call->result = is_initialized(call->node) ? resolve(call, handle) : NVML_ERROR_UNINITIALIZED;
    return call->result == NVML_SUCCESS && check_reachable(call);
}

bool begin_device(struct call *call, nvmlDevice_t handle)
{
    if (begin_any_device(call, handle) && call->mig)
        call->result = NVML_ERROR_NOT_SUPPORTED;
    return call->result == NVML_SUCCESS;
}

bool touch(struct call *call, struct device *device)
{
    call->device = device;
    return apply_faults(call) && check_reachable(call);
}

nvmlReturn_t end(struct call *call)
{
    if (call->node)
        node_unlock(call->node);
    return call->result;
}
