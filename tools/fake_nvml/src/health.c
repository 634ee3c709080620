/* Memory errors, repairs, temperature, clocks, power, PCIe and the fabric. */
#include "getters.h"

#include <string.h>

UINT_GETTER(nvmlDeviceGetRetiredPagesPendingStatus, RETIRED_PAGES_PENDING)
UINT_GETTER(nvmlDeviceGetPowerUsage, POWER_USAGE)
UINT_GETTER(nvmlDeviceGetPowerManagementLimit, POWER_LIMIT)
UINT_GETTER(nvmlDeviceGetEnforcedPowerLimit, POWER_LIMIT_ENFORCED)
UINT_GETTER(nvmlDeviceGetCurrPcieLinkGeneration, PCIE_GENERATION)
UINT_GETTER(nvmlDeviceGetCurrPcieLinkWidth, PCIE_WIDTH)
UINT_GETTER(nvmlDeviceGetMaxPcieLinkGeneration, PCIE_MAX_GENERATION)
UINT_GETTER(nvmlDeviceGetMaxPcieLinkWidth, PCIE_MAX_WIDTH)
UINT_GETTER(nvmlDeviceGetPcieReplayCounter, PCIE_REPLAYS)
U64_GETTER(nvmlDeviceGetCurrentClocksEventReasons, CLOCK_REASONS)
U64_GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, CLOCK_REASONS)
U64_GETTER(nvmlDeviceGetSupportedClocksEventReasons, SUPPORTED_CLOCK_REASONS)
U64_GETTER(nvmlDeviceGetSupportedClocksThrottleReasons, SUPPORTED_CLOCK_REASONS)
MODE_GETTER(nvmlDeviceGetEccMode, ECC_MODE)

/* The row of counters for an error type (0 corrected, 1 uncorrected) and a counter type
 * (0 volatile, 1 aggregate), or SIGNAL_COUNT for arguments out of range. */
static enum signal ecc_row(unsigned int type, unsigned int counter)
{
    static const enum signal rows[2][2] = {
        {ECC_VOLATILE_CORRECTED, ECC_AGGREGATE_CORRECTED},
        {ECC_VOLATILE_UNCORRECTED, ECC_AGGREGATE_UNCORRECTED},
    };
    return type < 2 && counter < 2 ? rows[type][counter] : SIGNAL_COUNT;
}

static bool ecc_is_on(const struct device *device)
{
    return device->values[ECC_MODE][0] == 1;
}

NVML_API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, unsigned int type,
                                                  unsigned int counter, unsigned long long *count)
{
    struct call call = {.function = __func__};
    enum signal row = ecc_row(type, counter);
    if (!begin_device(&call, handle))
        return end(&call);
    if (row == SIGNAL_COUNT)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else
        call.result =
            put_u64(count, ecc_is_on(call.device) ? row_sum(call.device, row) : UNSUPPORTED);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t handle, unsigned int type,
                                                      unsigned int counter, unsigned int location,
                                                      unsigned long long *count)
{
    struct call call = {.function = __func__};
    enum signal row = ecc_row(type, counter);
    if (!begin_device(&call, handle))
        return end(&call);
    if (row == SIGNAL_COUNT || location >= 8)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else
        call.result = put_u64(
            count, ecc_is_on(call.device) ? call.device->values[row][location] : UNSUPPORTED);
    return end(&call);
}

/* What a versioned struct and a signal that may be missing say before any work. */
static bool accepts(struct call *call, const unsigned int *version, unsigned int expected,
                    enum signal signal)
{
    if (!version)
        call->result = NVML_ERROR_INVALID_ARGUMENT;
    else if (*version != expected)
        call->result = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    else if (call->device->values[signal][0] == UNSUPPORTED)
        call->result = NVML_ERROR_NOT_SUPPORTED;
    return call->result == NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t handle,
                                                      nvmlEccSramErrorStatus_t *out)
{
    struct call call = {.function = __func__};
    const unsigned int version = NVML_STRUCT_VERSION(nvmlEccSramErrorStatus_t, 1u);
    if (!begin_device(&call, handle) ||
        !accepts(&call, out ? &out->version : NULL, version, SRAM_AGGREGATE))
        return end(&call);
    const int64_t *aggregate = call.device->values[SRAM_AGGREGATE];
    const int64_t *since_load = call.device->values[SRAM_VOLATILE];
    *out = (nvmlEccSramErrorStatus_t){
        .version = version,
        .aggregateUncParity = (unsigned long long)aggregate[0],
        .aggregateUncSecDed = (unsigned long long)aggregate[1],
        .aggregateCor = (unsigned long long)aggregate[2],
        .volatileUncParity = (unsigned long long)since_load[0],
        .volatileUncSecDed = (unsigned long long)since_load[1],
        .volatileCor = (unsigned long long)since_load[2],
        .bThresholdExceeded = (unsigned int)call.device->values[SRAM_THRESHOLD_EXCEEDED][0],
    };
    for (int i = 0; i < 5; i++)
        out->aggregateUncBucket[i] = (unsigned long long)call.device->values[SRAM_BUCKET][i];
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t handle, unsigned int cause,
                                                unsigned int *count, unsigned long long *addresses)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    if (cause >= 2 || !count) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    int64_t retired = call.device->values[RETIRED_PAGES][cause];
    unsigned int room = addresses ? *count : 0;
    call.result = put_uint(count, retired);
    if (call.result != NVML_SUCCESS || retired == 0)
        return end(&call);
    if (room < (unsigned int)retired)
        call.result = NVML_ERROR_INSUFFICIENT_SIZE;
    else /* made-up addresses: one 64 KiB page each */
        for (unsigned int i = 0; i < (unsigned int)retired; i++)
            addresses[i] = 0x10000ull * (2 * i + cause + 1);
    return end(&call);
}

static bool has_mig_devices(const struct device *device)
{
    for (int i = 0; i < MAX_MIG; i++)
        if (device->mig[i].exists)
            return true;
    return false;
}

NVML_API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t handle, unsigned int *corrected,
                                                unsigned int *uncorrected, unsigned int *pending,
                                                unsigned int *failure)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    const struct device *device = call.device;
    const int64_t values[] = {device->values[REMAPPED_ROWS][0], device->values[REMAPPED_ROWS][1],
                              device->values[REMAP_PENDING][0], device->values[REMAP_FAILURE][0]};
    if (has_mig_devices(device))
        call.result = NVML_ERROR_NOT_SUPPORTED;
    else
        call.result = put_uints(
            (unsigned int *[]){corrected, uncorrected, pending, failure}, values, 4);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t handle,
                                                        nvmlRowRemapperHistogramValues_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    if (!out)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else
        call.result = put_uints(
            (unsigned int *[]){&out->max, &out->high, &out->partial, &out->low, &out->none},
            call.device->values[REMAP_BANKS], 5);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t handle, nvmlRepairStatus_t *out)
{
    struct call call = {.function = __func__};
    const unsigned int version = NVML_STRUCT_VERSION(nvmlRepairStatus_t, 1u);
    if (begin_device(&call, handle) &&
        accepts(&call, out ? &out->version : NULL, version, REPAIR_PENDING)) {
        const int64_t *pending = call.device->values[REPAIR_PENDING];
        out->bChannelRepairPending = (unsigned int)pending[0];
        out->bTpcRepairPending = (unsigned int)pending[1];
    }
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, unsigned int sensor,
                                               unsigned int *celsius)
{
    struct call call = {.function = __func__};
    if (begin_device(&call, handle))
        call.result = sensor ? NVML_ERROR_INVALID_ARGUMENT
                             : put_uint(celsius, call.device->values[TEMPERATURE][0]);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t handle, nvmlTemperature_t *out)
{
    struct call call = {.function = __func__};
    const unsigned int version = NVML_STRUCT_VERSION(nvmlTemperature_t, 1u);
    if (!begin_device(&call, handle) ||
        !accepts(&call, out ? &out->version : NULL, version, TEMPERATURE))
        return end(&call);
    if (out->sensorType)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else
        out->temperature = (int)call.device->values[TEMPERATURE][0];
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t handle, unsigned int kind,
                                                        unsigned int *celsius)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    if (kind >= 8)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else /* the kinds from 4 on are about acoustics: no data-centre board has them */
        call.result = put_uint(
            celsius, kind < 4 ? call.device->values[TEMPERATURE_THRESHOLD][kind] : UNSUPPORTED);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t handle,
                                                     nvmlMarginTemperature_t *out)
{
    struct call call = {.function = __func__};
    const unsigned int version = NVML_STRUCT_VERSION(nvmlMarginTemperature_t, 1u);
    if (begin_device(&call, handle) &&
        accepts(&call, out ? &out->version : NULL, version, TEMPERATURE_MARGIN))
        out->marginTemperature = (int)call.device->values[TEMPERATURE_MARGIN][0];
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t handle, unsigned int policy,
                                                   nvmlViolationTime_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    if (!out || policy >= 12) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    call.result = put_u64(&out->violationTime, call.device->values[VIOLATION_TIME][policy]);
    out->referenceTime = monotonic_ns() / 1000; /* microseconds */
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t handle, nvmlGpuFabricInfo_v3_t *out)
{
    struct call call = {.function = __func__};
    const unsigned int version = out ? out->v2.version : 0;
    const bool third = version == NVML_STRUCT_VERSION(nvmlGpuFabricInfo_v3_t, 3u);
    if (!begin_device(&call, handle))
        return end(&call);
    if (!out) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    if (!third && version != NVML_STRUCT_VERSION(nvmlGpuFabricInfo_v2_t, 2u)) {
        call.result = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
        return end(&call);
    }
    const struct device *device = call.device;
    if (device->values[FABRIC_STATE][0] == UNSUPPORTED) {
        call.result = NVML_ERROR_NOT_SUPPORTED;
        return end(&call);
    }
    out->v2 = (nvmlGpuFabricInfo_v2_t){
        .version = version,
        .status = (nvmlReturn_t)device->values[FABRIC_STATUS][0],
        .cliqueId = (unsigned int)device->values[FABRIC_CLIQUE][0],
        .state = (unsigned int)device->values[FABRIC_STATE][0],
        .healthMask = (unsigned int)device->values[FABRIC_HEALTH_MASK][0],
    };
    memcpy(out->v2.clusterUuid, device->cluster_uuid, sizeof device->cluster_uuid);
    if (third)
        out->healthSummary = (unsigned char)device->values[FABRIC_HEALTH_SUMMARY][0];
    return end(&call);
}
