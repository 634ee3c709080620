/* The node, its GPUs and their signals. */
#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum reset_effect { KEEP, ZERO };

static const struct {
    const char *name;
    int width;
    enum reset_effect on_reset;
} signals[] = {
#define SIGNAL_ROW(identifier, name, width, reset) {name, width, reset},
    SIGNALS(SIGNAL_ROW)
#undef SIGNAL_ROW
};

struct device *find_device(struct node *node, int32_t gpu)
{
    return gpu >= 0 && (uint32_t)gpu < node->slot_count ? &node->devices[gpu] : NULL;
}

bool copy_text(char *out, size_t size, const char *text, const char *mark)
{
    int length = snprintf(NULL, 0, "%s%s", text, mark);
    if ((size_t)length >= size)
        return false;
    snprintf(out, size, "%s%s", text, mark);
    return true;
}

int finish(struct node *node, int result)
{
    if (result >= 0)
        node_changed(node);
    node_unlock(node);
    return result;
}

CONTROL_API struct node *fake_nvml_create(const char *path, const char *model, const char *seed)
{
    struct node *node = node_create(path);
    if (!node)
        return NULL;
    snprintf(node->model, sizeof node->model, "%s", model);
    snprintf(node->seed, sizeof node->seed, "%s", seed);
    return node;
}

CONTROL_API struct node *fake_nvml_open(const char *path)
{
    return node_open(path);
}

CONTROL_API void fake_nvml_close(struct node *node)
{
    node_close(node);
}

/* For tests of what a death inside the lock does. */
CONTROL_API void fake_nvml_lock(struct node *node)
{
    node_lock(node);
}

static int set_driver(struct node *node, const char *version, int cuda_version)
{
    char nvml[64];
    snprintf(nvml, sizeof nvml, "%d.%.40s", cuda_version / 1000, version);
    if (!copy_text(node->driver_version, sizeof node->driver_version, version, SIMULATED_VERSION))
        return -EINVAL;
    copy_text(node->nvml_version, sizeof node->nvml_version, nvml, SIMULATED_VERSION);
    node->cuda_version = cuda_version;
    return 0;
}

CONTROL_API int fake_nvml_set_driver(struct node *node, const char *version, int cuda_version)
{
    node_lock(node);
    return finish(node, set_driver(node, version, cuda_version));
}

CONTROL_API void fake_nvml_describe(struct node *node, struct node_identity *out)
{
    node_lock(node);
    *out = (struct node_identity){.cuda_version = node->cuda_version,
                                  .gpus = (int32_t)node->slot_count,
                                  .enumerated = (int32_t)node->gpu_count};
    memcpy(out->model, node->model, sizeof out->model);
    memcpy(out->seed, node->seed, sizeof out->seed);
    memcpy(out->driver_version, node->driver_version, sizeof out->driver_version);
    memcpy(out->nvml_version, node->nvml_version, sizeof out->nvml_version);
    node_unlock(node);
}

/* As if the kernel module had been unloaded and loaded: nobody is initialised any more, event sets
 * are dead. With `strand_clients`, processes that have loaded the library must start anew. */
CONTROL_API int fake_nvml_reload_driver(struct node *node, const char *version, int cuda_version,
                                        bool strand_clients)
{
    node_lock(node);
    int result = set_driver(node, version, cuda_version);
    if (result == 0) {
        node->driver_epoch++;
        if (strand_clients)
            node->oldest_epoch = node->driver_epoch;
    }
    return finish(node, result);
}

CONTROL_API int fake_nvml_kill_event_sets(struct node *node)
{
    node_lock(node);
    node->sets_epoch++;
    return finish(node, 0);
}

CONTROL_API int fake_nvml_signal(const char *name)
{
    for (int signal = 0; signal < SIGNAL_COUNT; signal++)
        if (strcmp(signals[signal].name, name) == 0)
            return signal;
    return -ENOENT;
}

CONTROL_API const char *fake_nvml_signal_name(int signal)
{
    return signal >= 0 && signal < SIGNAL_COUNT ? signals[signal].name : NULL;
}

CONTROL_API int fake_nvml_signal_width(int signal)
{
    return signal >= 0 && signal < SIGNAL_COUNT ? signals[signal].width : -ENOENT;
}

static int64_t *find_value(struct node *node, int32_t gpu, int signal, int element)
{
    struct device *device = find_device(node, gpu);
    if (!device || signal < 0 || signal >= SIGNAL_COUNT)
        return NULL;
    if (element < 0 || element >= signals[signal].width)
        return NULL;
    return &device->values[signal][element];
}

CONTROL_API int fake_nvml_set(struct node *node, int32_t gpu, int signal, int element,
                              int64_t value)
{
    node_lock(node);
    int64_t *place = find_value(node, gpu, signal, element);
    if (place)
        *place = value;
    return finish(node, place ? 0 : -ENOENT);
}

/* Counts up; an unsupported element starts at 0. */
CONTROL_API int fake_nvml_increase(struct node *node, int32_t gpu, int signal, int element,
                                   int64_t by)
{
    node_lock(node);
    int64_t *place = find_value(node, gpu, signal, element);
    if (place)
        *place = (*place == UNSUPPORTED ? 0 : *place) + by;
    return finish(node, place ? 0 : -ENOENT);
}

CONTROL_API int fake_nvml_get(struct node *node, int32_t gpu, int signal, int element, int64_t *out)
{
    node_lock(node);
    const int64_t *place = find_value(node, gpu, signal, element);
    if (place)
        *out = *place;
    node_unlock(node);
    return place ? 0 : -ENOENT;
}

CONTROL_API int fake_nvml_identity(struct node *node, int32_t gpu, struct gpu_identity *out)
{
    node_lock(node);
    const struct device *device = find_device(node, gpu);
    if (device) {
        *out = (struct gpu_identity){.index = node_index_of(node, (uint32_t)gpu),
                                     .lost = device->lost,
                                     .board = device->incarnation};
        memcpy(out->name, device->name, sizeof out->name);
        memcpy(out->uuid, device->uuid, sizeof out->uuid);
        memcpy(out->serial, device->serial, sizeof out->serial);
        memcpy(out->bus_id, device->bus_id, sizeof out->bus_id);
    }
    node_unlock(node);
    return device ? 0 : -ENOENT;
}

static bool name_device(struct device *device, const char *uuid, const char *serial)
{
    return copy_text(device->uuid, sizeof device->uuid, uuid, "") &&
           copy_text(device->serial, sizeof device->serial, serial, "");
}

/* A new GPU without any signal, enumerated last. Returns its slot. */
CONTROL_API int fake_nvml_new_gpu(struct node *node, const char *name, const char *uuid,
                                  const char *serial, const char *bus_id)
{
    node_lock(node);
    if (node->slot_count == MAX_GPUS)
        return finish(node, -ENOSPC);
    struct device *device = &node->devices[node->slot_count];
    if (!copy_text(device->name, sizeof device->name, name, SIMULATED_NAME) ||
        !copy_text(device->bus_id, sizeof device->bus_id, bus_id, "") ||
        !name_device(device, uuid, serial))
        return finish(node, -EINVAL);
    for (int signal = 0; signal < SIGNAL_COUNT; signal++)
        for (int element = 0; element < MAX_LINKS; element++)
            device->values[signal][element] = UNSUPPORTED;
    uint32_t gpu = node->slot_count++;
    enumerate(node, gpu, -1);
    return finish(node, (int)gpu);
}

/* Another board in the same place: same PCI address and minor, other UUID and serial, no faults. */
CONTROL_API int fake_nvml_replace_gpu(struct node *node, int32_t gpu, const char *uuid,
                                      const char *serial)
{
    node_lock(node);
    struct device *device = find_device(node, gpu);
    if (!device)
        return finish(node, -ENOENT);
    if (!name_device(device, uuid, serial))
        return finish(node, -EINVAL);
    device->incarnation++;
    device->lost = 0;
    clear_mig_devices(device);
    return finish(node, 0);
}

CONTROL_API int fake_nvml_set_cluster(struct node *node, int32_t gpu, const uint8_t uuid[16])
{
    node_lock(node);
    struct device *device = find_device(node, gpu);
    if (device)
        memcpy(device->cluster_uuid, uuid, sizeof device->cluster_uuid);
    return finish(node, device ? 0 : -ENOENT);
}

static void reset_signals(struct device *device)
{
    for (int signal = 0; signal < SIGNAL_COUNT; signal++)
        for (int element = 0; element < MAX_LINKS; element++)
            if (signals[signal].on_reset == ZERO && device->values[signal][element] != UNSUPPORTED)
                device->values[signal][element] = 0;
    device->values[ECC_MODE][0] = device->values[ECC_MODE][1];
    device->values[MIG_MODE][0] = device->values[MIG_MODE][1];
}

/* `index` and `minor`: -1 keeps them. `kill_registrations`: event sets get no more events of it. */
CONTROL_API int fake_nvml_reset(struct node *node, int32_t gpu, int32_t index, int32_t minor,
                                bool kill_registrations)
{
    node_lock(node);
    struct device *device = find_device(node, gpu);
    if (!device || node_index_of(node, (uint32_t)gpu) < 0)
        return finish(node, -ENOENT);
    if (index >= (int32_t)node->gpu_count)
        return finish(node, -EINVAL);
    reset_signals(device);
    clear_mig_devices(device);
    device->lost = 0;
    device->registration += kill_registrations;
    if (minor >= 0)
        device->values[MINOR_NUMBER][0] = minor;
    if (index >= 0) {
        drop_from_enumeration(node, (uint32_t)gpu);
        enumerate(node, (uint32_t)gpu, index);
    }
    return finish(node, 0);
}
