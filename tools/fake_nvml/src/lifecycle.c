/* Initialisation, shutdown, error texts and what belongs to the node as a whole. */
#include "call.h"

NVML_API nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    struct call call = {.function = __func__};
    (void)flags;
    if (begin_uninitialized(&call)) {
        if (driver_was_replaced(call.node))
            call.result = NVML_ERROR_LIB_RM_VERSION_MISMATCH;
        else
            count_initialization(call.node);
    }
    return end(&call);
}

/* The names other clients use; faults set on nvmlInitWithFlags apply to all of them. */
NVML_API nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlShutdown(void)
{
    struct call call = {.function = __func__};
    if (begin_uninitialized(&call))
        count_shutdown(call.node);
    else if (!call.node)
        call.result = NVML_SUCCESS;
    return end(&call);
}

NVML_API const char *nvmlErrorString(nvmlReturn_t error)
{
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported",
        "Insufficient Permissions", "Already Initialized", "Not Found", "Insufficient Size",
        "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
        "GPU requires reset", "Operating system call failed", "Driver/library version mismatch",
        "In use by another client", "Insufficient Memory", "No data",
        "ECC is not supported on vGPU", "Insufficient Resources", "Frequency not supported",
        "Argument version mismatch", "Deprecated", "Not Ready", "GPU Not Found", "Invalid state",
        "Reset type not supported",
    };
    if ((unsigned int)error < sizeof texts / sizeof *texts)
        return texts[error];
    return "Unknown Error";
}

NVML_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    struct call call = {.function = __func__};
    if (begin(&call))
        call.result = put_string(version, length, call.node->driver_version);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    struct call call = {.function = __func__};
    if (begin(&call))
        call.result = put_string(version, length, call.node->nvml_version);
    return end(&call);
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    struct call call = {.function = __func__};
    if (begin(&call))
        call.result = put_uint((unsigned int *)version, call.node->cuda_version);
    return end(&call);
}
