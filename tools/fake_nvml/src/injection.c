/* Faults: events, lost and removed GPUs, hanging, failing and slow calls, MIG devices. */
#include "control.h"

#include <errno.h>
#include <string.h>

#define NOT_ATTRIBUTED UINT32_MAX

void add_event(struct node *node, int32_t gpu, struct event event)
{
    event.gpu = (uint32_t)gpu;
    event.incarnation = node->devices[gpu].incarnation;
    event.registration = node->devices[gpu].registration;
    node->events[node->event_count % MAX_EVENTS] = event;
    node->event_count++;
}

CONTROL_API int fake_nvml_inject_event(struct node *node, int32_t gpu, uint64_t type, uint64_t data,
                                       uint32_t gpu_instance, uint32_t compute_instance)
{
    node_lock(node);
    if (!find_device(node, gpu))
        return finish(node, -ENOENT);
    if (__builtin_popcountll(type) != 1)
        return finish(node, -EINVAL);
    add_event(node, gpu, (struct event){.type = type,
                                        .data = data,
                                        .gpu_instance = gpu_instance,
                                        .compute_instance = compute_instance});
    return finish(node, 0);
}

/* `error` 0 brings the GPU back. */
CONTROL_API int fake_nvml_lose(struct node *node, int32_t gpu, uint32_t error)
{
    node_lock(node);
    struct device *device = find_device(node, gpu);
    if (device)
        device->lost = error;
    return finish(node, device ? 0 : -ENOENT);
}

void enumerate(struct node *node, uint32_t gpu, int32_t index)
{
    uint32_t last = node->gpu_count;
    uint32_t place = index < 0 || (uint32_t)index > last ? last : (uint32_t)index;
    memmove(&node->order[place + 1], &node->order[place],
            (node->gpu_count - place) * sizeof *node->order);
    node->order[place] = gpu;
    node->gpu_count++;
}

void drop_from_enumeration(struct node *node, uint32_t gpu)
{
    int index = node_index_of(node, gpu);
    if (index < 0)
        return;
    node->gpu_count--;
    memmove(&node->order[index], &node->order[index + 1],
            (node->gpu_count - (uint32_t)index) * sizeof *node->order);
}

CONTROL_API int fake_nvml_remove_gpu(struct node *node, int32_t gpu)
{
    node_lock(node);
    if (!find_device(node, gpu))
        return finish(node, -ENOENT);
    if (node_index_of(node, (uint32_t)gpu) < 0)
        return finish(node, -EALREADY);
    drop_from_enumeration(node, (uint32_t)gpu);
    return finish(node, 0);
}

/* Back where it was among the others, or at `index`. */
CONTROL_API int fake_nvml_add_gpu(struct node *node, int32_t gpu, int32_t index)
{
    node_lock(node);
    if (!find_device(node, gpu))
        return finish(node, -ENOENT);
    if (node_index_of(node, (uint32_t)gpu) >= 0)
        return finish(node, -EALREADY);
    if (index > (int32_t)node->gpu_count)
        return finish(node, -EINVAL);
    if (index < 0)
        for (index = 0; index < (int32_t)node->gpu_count; index++)
            if (node->order[index] > (uint32_t)gpu)
                break;
    enumerate(node, (uint32_t)gpu, index);
    return finish(node, 0);
}

/* Returns the fault's number. One of the same kind, function and GPU is replaced. */
CONTROL_API int fake_nvml_add_fault(struct node *node, const struct fault *fault)
{
    node_lock(node);
    int place = -ENOSPC;
    if (fault->gpu != ANY_GPU && !find_device(node, fault->gpu))
        return finish(node, -ENOENT);
    for (int i = MAX_FAULTS - 1; i >= 0; i--)
        if (node->faults[i].kind == NO_FAULT)
            place = i;
    for (int i = 0; i < MAX_FAULTS; i++) {
        const struct fault *other = &node->faults[i];
        if (other->kind == fault->kind && other->gpu == fault->gpu &&
            strcmp(other->function, fault->function) == 0)
            place = i;
    }
    if (place >= 0)
        node->faults[place] = *fault;
    return finish(node, place);
}

CONTROL_API int fake_nvml_fault(struct node *node, int number, struct fault *out)
{
    if (number < 0 || number >= MAX_FAULTS)
        return -ENOENT;
    node_lock(node);
    struct fault *fault = &node->faults[number];
    if (fault->kind == HANG && fault->until_ns && fault->until_ns <= monotonic_ns())
        fault->kind = NO_FAULT;
    *out = *fault;
    node_unlock(node);
    return 0;
}

CONTROL_API int fake_nvml_clear_fault(struct node *node, int number)
{
    if (number < 0 || number >= MAX_FAULTS)
        return -ENOENT;
    node_lock(node);
    node->faults[number].kind = NO_FAULT;
    return finish(node, 0);
}

CONTROL_API uint64_t fake_nvml_now_ns(void)
{
    return monotonic_ns();
}

#define MIG_CONFIG_CHANGE 0x100u

static void mig_changed(struct node *node, int32_t gpu)
{
    add_event(node, gpu, (struct event){.type = MIG_CONFIG_CHANGE,
                                        .gpu_instance = NOT_ATTRIBUTED,
                                        .compute_instance = NOT_ATTRIBUTED});
}

void clear_mig_devices(struct device *device)
{
    for (int i = 0; i < MAX_MIG; i++) {
        device->mig[i].incarnation += device->mig[i].exists;
        device->mig[i].exists = false;
    }
}

/* Returns the index of the new MIG device. */
CONTROL_API int fake_nvml_create_mig(struct node *node, int32_t gpu,
                                     const struct mig_identity *wanted)
{
    node_lock(node);
    struct device *device = find_device(node, gpu);
    if (!device)
        return finish(node, -ENOENT);
    if (device->values[MIG_MODE][0] != 1)
        return finish(node, -EINVAL);
    for (int i = 0; i < MAX_MIG && i < device->values[MIG_SLOTS][0]; i++) {
        struct mig_device *mig = &device->mig[i];
        if (mig->exists)
            continue;
        uint32_t incarnation = mig->incarnation;
        *mig = (struct mig_device){.exists = true,
                                   .gpu_instance = wanted->gpu_instance,
                                   .compute_instance = wanted->compute_instance,
                                   .slices = wanted->slices,
                                   .multiprocessors = wanted->multiprocessors,
                                   .memory_mb = wanted->memory_mb,
                                   .incarnation = incarnation};
        memcpy(mig->profile, wanted->profile, sizeof mig->profile - 1);
        memcpy(mig->uuid, wanted->uuid, sizeof mig->uuid - 1);
        mig_changed(node, gpu);
        return finish(node, i);
    }
    return finish(node, -ENOSPC);
}

CONTROL_API int fake_nvml_destroy_mig(struct node *node, int32_t gpu, int index)
{
    node_lock(node);
    struct device *device = find_device(node, gpu);
    if (!device || index < 0 || index >= MAX_MIG || !device->mig[index].exists)
        return finish(node, -ENOENT);
    device->mig[index].exists = false;
    device->mig[index].incarnation++;
    mig_changed(node, gpu);
    return finish(node, 0);
}

CONTROL_API int fake_nvml_mig(struct node *node, int32_t gpu, int index, struct mig_identity *out)
{
    node_lock(node);
    const struct device *device = find_device(node, gpu);
    bool found = device && index >= 0 && index < MAX_MIG;
    if (found) {
        const struct mig_device *mig = &device->mig[index];
        *out = (struct mig_identity){.exists = mig->exists,
                                     .gpu_instance = mig->gpu_instance,
                                     .compute_instance = mig->compute_instance,
                                     .slices = mig->slices,
                                     .multiprocessors = mig->multiprocessors,
                                     .memory_mb = mig->memory_mb};
        memcpy(out->profile, mig->profile, sizeof out->profile);
        memcpy(out->uuid, mig->uuid, sizeof out->uuid);
    }
    node_unlock(node);
    return found ? 0 : -ENOENT;
}
