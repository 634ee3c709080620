/* MIG mode and MIG devices. */
#include "getters.h"

MODE_GETTER(nvmlDeviceGetMigMode, MIG_MODE)

NVML_API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned int *count)
{
    struct call call = {.function = __func__};
    if (begin_device(&call, handle)) {
        /* 0, not an error, where MIG is off or unknown. */
        bool enabled = call.device->values[MIG_MODE][0] == 1;
        call.result = put_uint(count, enabled ? call.device->values[MIG_SLOTS][0] : 0);
    }
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned int index,
                                                          nvmlDevice_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    if (call.device->values[MIG_MODE][0] == UNSUPPORTED)
        call.result = NVML_ERROR_NOT_SUPPORTED;
    else if (!out || index >= MAX_MIG)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else if (!call.device->mig[index].exists)
        call.result = NVML_ERROR_NOT_FOUND;
    else
        *out = mig_handle_of(&call.device->mig[index]);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t handle, unsigned int *is_mig)
{
    struct call call = {.function = __func__};
    if (begin_any_device(&call, handle))
        call.result = put_uint(is_mig, call.mig != NULL);
    return end(&call);
}

/* Goes on for the handle of a MIG device only. */
static bool begin_mig(struct call *call, nvmlDevice_t handle)
{
    if (begin_any_device(call, handle) && !call->mig)
        call->result = NVML_ERROR_INVALID_ARGUMENT;
    return call->result == NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig,
                                                                   nvmlDevice_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_mig(&call, mig))
        return end(&call);
    if (!out)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else
        *out = handle_of(call.device);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t mig, unsigned int *id)
{
    struct call call = {.function = __func__};
    if (begin_mig(&call, mig))
        call.result = put_uint(id, call.mig->gpu_instance);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t mig, unsigned int *id)
{
    struct call call = {.function = __func__};
    if (begin_mig(&call, mig))
        call.result = put_uint(id, call.mig->compute_instance);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t mig, nvmlDeviceAttributes_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_mig(&call, mig))
        return end(&call);
    if (!out)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else
        *out = (nvmlDeviceAttributes_t){
            .multiprocessorCount = call.mig->multiprocessors,
            .sharedCopyEngineCount = call.mig->slices,
            .gpuInstanceSliceCount = call.mig->slices,
            .computeInstanceSliceCount = call.mig->slices,
            .memorySizeMB = call.mig->memory_mb,
        };
    return end(&call);
}
