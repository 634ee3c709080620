/* NVLinks: state, version and the error counters of NVLink 1 to 4. NVLink 5 counts in fields. */
#include "call.h"

/* A link the board lacks is a bad argument; a board without links supports none of it. */
static nvmlReturn_t link_value(const struct device *device, enum signal signal, int link,
                               int64_t *value)
{
    if (row_sum(device, NVLINK_STATE) == UNSUPPORTED)
        return NVML_ERROR_NOT_SUPPORTED;
    if (link < 0 || link >= MAX_LINKS || device->values[NVLINK_STATE][link] == UNSUPPORTED)
        return NVML_ERROR_INVALID_ARGUMENT;
    *value = device->values[signal][link];
    return NVML_SUCCESS;
}

static nvmlReturn_t link_uint(const char *function, nvmlDevice_t handle, enum signal signal,
                              int link, unsigned int *out)
{
    struct call call = {.function = function};
    int64_t value = UNSUPPORTED;
    if (!begin_device(&call, handle))
        return end(&call);
    call.result = link_value(call.device, signal, link, &value);
    if (call.result == NVML_SUCCESS)
        call.result = put_uint(out, value);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t handle, int link, unsigned int *active)
{
    return link_uint(__func__, handle, NVLINK_STATE, link, active);
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t handle, int link,
                                                 unsigned int *version)
{
    return link_uint(__func__, handle, NVLINK_VERSION, link, version);
}

NVML_API nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t handle, int link, int counter,
                                                      unsigned long long *count)
{
    static const enum signal rows[] = {NVLINK_REPLAY, NVLINK_RECOVERY, NVLINK_CRC_FLIT,
                                       NVLINK_CRC_DATA, NVLINK_ECC_DATA};
    struct call call = {.function = __func__};
    int64_t value = UNSUPPORTED;
    if (!begin_device(&call, handle))
        return end(&call);
    if (counter < 0 || counter >= (int)(sizeof rows / sizeof *rows))
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else
        call.result = link_value(call.device, rows[counter], link, &value);
    if (call.result == NVML_SUCCESS)
        call.result = put_u64(count, value);
    return end(&call);
}
