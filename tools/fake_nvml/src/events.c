/* Event sets. A set is private to its process: registrations and a position in the node's log of
 * events, so that a client that dies leaves nothing behind. The node lock guards it. */
#include "call.h"

#include <stdio.h>
#include <stdlib.h>

#define EVENT_TYPES 64
#define NS_PER_MILLI 1000000ull

struct registration {
    uint32_t incarnation, count; /* of the device, at the time of registering */
    uint64_t since[EVENT_TYPES]; /* by type: the number of the first event to deliver, plus one */
};

struct event_set {
    struct event_set *next;
    uint64_t position; /* the number of the next event to look at */
    uint32_t sets_epoch, driver_epoch;
    unsigned int waiting;
    bool broken; /* registering failed with an unknown error */
    struct registration registrations[MAX_GPUS];
};

static struct event_set *sets;

static bool is_alive(const struct node *node, const struct event_set *set)
{
    for (const struct event_set *known = sets; known; known = known->next)
        if (known == set)
            return !set->broken && set->sets_epoch == node->sets_epoch &&
                   set->driver_epoch == node->driver_epoch;
    return false;
}

NVML_API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out)
{
    struct call call = {.function = __func__};
    if (!begin(&call))
        return end(&call);
    struct event_set *set = out ? calloc(1, sizeof *set) : NULL;
    if (!set) {
        call.result = out ? NVML_ERROR_MEMORY : NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    set->position = call.node->event_count;
    set->sets_epoch = call.node->sets_epoch;
    set->driver_epoch = call.node->driver_epoch;
    set->next = sets;
    sets = *out = set;
    return end(&call);
}

NVML_API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    struct call call = {.function = __func__};
    if (!begin(&call))
        return end(&call);
    struct event_set **link = &sets;
    while (*link && *link != set)
        link = &(*link)->next;
    if (!*link) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    if (set->waiting > 0) {
        fprintf(stderr, "fake-nvml: nvmlEventSetFree of a set that %u thread(s) wait on; "
                        "the real library would use freed memory\n", set->waiting);
        node_unlock(call.node);
        abort();
    }
    *link = set->next;
    free(set);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t handle,
                                                       unsigned long long *types)
{
    struct call call = {.function = __func__};
    if (begin_device(&call, handle))
        call.result = put_u64(types, call.device->values[EVENT_TYPES_SUPPORTED][0]);
    return end(&call);
}

static void add_registration(struct call *call, struct event_set *set, uint64_t types)
{
    struct device *device = call->device;
    struct registration *registration = &set->registrations[device - call->node->devices];
    if (registration->incarnation != device->incarnation ||
        registration->count != device->registration)
        *registration = (struct registration){device->incarnation, device->registration, {0}};
    for (int bit = 0; bit < EVENT_TYPES; bit++)
        if (types >> bit & 1 && !registration->since[bit])
            registration->since[bit] = call->node->event_count + 1;
}

NVML_API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t handle, unsigned long long types,
                                               nvmlEventSet_t set)
{
    struct call call = {.function = __func__};
    if (begin_device(&call, handle)) {
        if (!is_alive(call.node, set))
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else if (types & ~(uint64_t)call.device->values[EVENT_TYPES_SUPPORTED][0])
            call.result = NVML_ERROR_NOT_SUPPORTED;
        else
            add_registration(&call, set, types);
    } else if (call.result == NVML_ERROR_UNKNOWN && is_alive(call.node, set)) {
        set->broken = true;
    }
    return end(&call);
}

static bool is_wanted(const struct event_set *set, const struct event *event, uint64_t number)
{
    const struct registration *registration = &set->registrations[event->gpu];
    uint64_t since = registration->since[__builtin_ctzll(event->type)];
    return since && number + 1 >= since && registration->incarnation == event->incarnation &&
           registration->count == event->registration;
}

static const struct event *next_event(struct node *node, struct event_set *set)
{
    /* A set that was not waited on for MAX_EVENTS events has lost the oldest. */
    if (node->event_count - set->position > MAX_EVENTS)
        set->position = node->event_count - MAX_EVENTS;
    while (set->position < node->event_count) {
        uint64_t number = set->position++;
        const struct event *event = &node->events[number % MAX_EVENTS];
        if (is_wanted(set, event, number))
            return event;
    }
    return NULL;
}

static void deliver(struct node *node, const struct event *event, nvmlEventData_t *data)
{
    struct device *device = &node->devices[event->gpu];
    *data = (nvmlEventData_t){
        .device = (nvmlDevice_t)&device->handles[event->incarnation % HANDLES],
        .eventType = event->type,
        .eventData = event->data,
        .gpuInstanceId = event->gpu_instance,
        .computeInstanceId = event->compute_instance,
    };
}

/* Whether the wait is over, with its outcome in call->result. Called with the lock held. */
static bool try_wait(struct call *call, struct event_set *set, nvmlEventData_t *data,
                     uint64_t until)
{
    if (!data || !is_alive(call->node, set)) {
        call->result = NVML_ERROR_INVALID_ARGUMENT;
        return true;
    }
    const struct event *event = next_event(call->node, set);
    if (event)
        deliver(call->node, event, data);
    else if (monotonic_ns() >= until)
        call->result = NVML_ERROR_TIMEOUT;
    return event || call->result == NVML_ERROR_TIMEOUT;
}

static nvmlReturn_t wait_for_event(const char *function, struct event_set *set,
                                   nvmlEventData_t *data, unsigned int timeout_ms)
{
    struct call call = {.function = function};
    uint64_t until = monotonic_ns() + timeout_ms * NS_PER_MILLI;
    bool counted = false;
    /* Every round begins like a call of its own: a fault reaches a wait that is in progress. */
    while (begin(&call) && !try_wait(&call, set, data, until)) {
        uint32_t seen = node_change(call.node);
        set->waiting += !counted;
        counted = true;
        node_unlock(call.node);
        node_wait(call.node, seen, until);
    }
    if (counted)
        set->waiting--;
    return end(&call);
}

NVML_API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data,
                                          unsigned int timeout_ms)
{
    return wait_for_event(__func__, set, data, timeout_ms);
}

/* The first form of the call knew no MIG instances; clients of it get the same structure. */
NVML_API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data,
                                       unsigned int timeout_ms)
{
    return wait_for_event(__func__, set, data, timeout_ms);
}
