/* Enumeration and identity. */
#include "getters.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

UINT_GETTER(nvmlDeviceGetMinorNumber, MINOR_NUMBER)
UINT_GETTER(nvmlDeviceGetArchitecture, ARCHITECTURE)
UINT_GETTER(nvmlDeviceGetPersistenceMode, PERSISTENCE_MODE)
UINT_GETTER(nvmlDeviceGetPerformanceState, PERFORMANCE_STATE)

NVML_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    struct call call = {.function = __func__};
    if (begin(&call))
        call.result = put_uint(count, call.node->gpu_count);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *out)
{
    struct call call = {.function = __func__};
    if (!begin(&call))
        return end(&call);
    if (!out || index >= call.node->gpu_count)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else if (touch(&call, &call.node->devices[call.node->order[index]]))
        *out = handle_of(call.device);
    return end(&call);
}

static struct device *find_by_uuid(struct node *node, const char *uuid)
{
    for (uint32_t index = 0; index < node->gpu_count; index++) {
        struct device *device = &node->devices[node->order[index]];
        if (strcasecmp(device->uuid, uuid) == 0)
            return device;
    }
    return NULL;
}

static struct mig_device *find_mig_by_uuid(struct node *node, const char *uuid,
                                           struct device **parent)
{
    for (uint32_t index = 0; index < node->gpu_count; index++) {
        struct device *device = &node->devices[node->order[index]];
        for (int i = 0; i < MAX_MIG; i++) {
            if (device->mig[i].exists && strcasecmp(device->mig[i].uuid, uuid) == 0) {
                *parent = device;
                return &device->mig[i];
            }
        }
    }
    return NULL;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    struct call call = {.function = __func__};
    struct device *device = NULL;
    struct mig_device *mig = NULL;
    if (!begin(&call))
        return end(&call);
    if (!uuid || !out) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    device = find_by_uuid(call.node, uuid);
    if (!device)
        mig = find_mig_by_uuid(call.node, uuid, &device);
    if (!device)
        call.result = NVML_ERROR_NOT_FOUND;
    else if (touch(&call, device))
        *out = mig ? mig_handle_of(mig) : handle_of(device);
    return end(&call);
}

struct address {
    unsigned int domain, bus, device;
};

static bool parse_address(const char *text, struct address *address)
{
    unsigned int function = 0;
    return sscanf(text, "%x:%x:%x.%x", &address->domain, &address->bus, &address->device,
                  &function) >= 3 && function == 0;
}

static struct device *find_by_address(struct node *node, struct address wanted)
{
    struct address address;
    for (uint32_t index = 0; index < node->gpu_count; index++) {
        struct device *device = &node->devices[node->order[index]];
        if (parse_address(device->bus_id, &address) && address.domain == wanted.domain &&
            address.bus == wanted.bus && address.device == wanted.device)
            return device;
    }
    return NULL;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *out)
{
    struct call call = {.function = __func__};
    struct address wanted;
    if (!begin(&call))
        return end(&call);
    struct device *device = NULL;
    if (!bus_id || !out || !parse_address(bus_id, &wanted))
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else if (!(device = find_by_address(call.node, wanted)))
        call.result = NVML_ERROR_NOT_FOUND;
    else if (touch(&call, device))
        *out = handle_of(device);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned int *index)
{
    struct call call = {.function = __func__};
    if (begin_device(&call, handle))
        call.result = put_uint(
            index, node_index_of(call.node, (uint32_t)(call.device - call.node->devices)));
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, unsigned int length)
{
    struct call call = {.function = __func__};
    if (begin_any_device(&call, handle))
        call.result = put_string(uuid, length, call.mig ? call.mig->uuid : call.device->uuid);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *name, unsigned int length)
{
    struct call call = {.function = __func__};
    char text[128];
    if (!begin_any_device(&call, handle))
        return end(&call);
    snprintf(text, sizeof text, "%s", call.device->name);
    if (call.mig) {
        /* The mark stays last. */
        size_t stem = strlen(text) - strlen(SIMULATED_NAME);
        snprintf(text + stem, sizeof text - stem, " MIG %s" SIMULATED_NAME, call.mig->profile);
    }
    call.result = put_string(name, length, text);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t handle, char *serial, unsigned int length)
{
    struct call call = {.function = __func__};
    if (begin_device(&call, handle))
        call.result = call.device->serial[0] ? put_string(serial, length, call.device->serial)
                                             : NVML_ERROR_NOT_SUPPORTED;
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *pci)
{
    struct call call = {.function = __func__};
    struct address address;
    if (!begin_device(&call, handle))
        return end(&call);
    if (!pci || !parse_address(call.device->bus_id, &address)) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    *pci = (nvmlPciInfo_t){
        .domain = address.domain,
        .bus = address.bus,
        .device = address.device,
        .pciDeviceId = (unsigned int)call.device->values[PCI_DEVICE_ID][0],
        .pciSubSystemId = (unsigned int)call.device->values[PCI_SUBSYSTEM_ID][0],
    };
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", address.domain & 0xffffffffu,
             address.bus & 0xffu, address.device & 0xffu);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0",
             address.domain & 0xffffu, address.bus & 0xffu, address.device & 0xffu);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major,
                                                         int *minor)
{
    struct call call = {.function = __func__};
    if (begin_device(&call, handle))
        call.result = put_uints((unsigned int *[]){(unsigned int *)major, (unsigned int *)minor},
                                call.device->values[COMPUTE_CAPABILITY], 2);
    return end(&call);
}

static nvmlMemory_v2_t memory_of(const struct call *call)
{
    const struct device *device = call->device;
    if (call->mig) {
        unsigned long long total = call->mig->memory_mb << 20;
        return (nvmlMemory_v2_t){.total = total, .free = total};
    }
    nvmlMemory_v2_t memory = {
        .total = (unsigned long long)device->values[MEMORY_TOTAL][0],
        .reserved = (unsigned long long)device->values[MEMORY_RESERVED][0],
        .used = (unsigned long long)device->values[MEMORY_USED][0],
    };
    memory.free = memory.total - memory.reserved - memory.used;
    return memory;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_any_device(&call, handle))
        return end(&call);
    nvmlMemory_v2_t memory = memory_of(&call);
    if (!out)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else /* this older form counts the reserved part as used */
        *out = (nvmlMemory_t){
            .total = memory.total, .free = memory.free, .used = memory.used + memory.reserved};
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_any_device(&call, handle))
        return end(&call);
    if (!out)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else if (out->version != NVML_STRUCT_VERSION(nvmlMemory_v2_t, 2u))
        call.result = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    else {
        unsigned int version = out->version;
        *out = memory_of(&call);
        out->version = version;
    }
    return end(&call);
}

NVML_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *out)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    const int64_t *percent = call.device->values[UTILIZATION];
    if (!out)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else if (percent[0] == UNSUPPORTED)
        call.result = NVML_ERROR_NOT_SUPPORTED;
    else
        *out = (nvmlUtilization_t){(unsigned int)percent[0], (unsigned int)percent[1]};
    return end(&call);
}
