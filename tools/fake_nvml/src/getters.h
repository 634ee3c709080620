/* Getters that are one signal each. */
#ifndef FAKE_NVML_GETTERS_H
#define FAKE_NVML_GETTERS_H

#include "call.h"

#define UINT_GETTER(function_name, signal) \
    NVML_API nvmlReturn_t function_name(nvmlDevice_t handle, unsigned int *out) \
    { \
        struct call call = {.function = __func__}; \
        if (begin_device(&call, handle)) \
            call.result = put_uint(out, call.device->values[signal][0]); \
        return end(&call); \
    }

#define U64_GETTER(function_name, signal) \
    NVML_API nvmlReturn_t function_name(nvmlDevice_t handle, unsigned long long *out) \
    { \
        struct call call = {.function = __func__}; \
        if (begin_device(&call, handle)) \
            call.result = put_u64(out, call.device->values[signal][0]); \
        return end(&call); \
    }

/* Present and pending value of a mode. */
#define MODE_GETTER(function_name, signal) \
    NVML_API nvmlReturn_t function_name(nvmlDevice_t handle, unsigned int *current, \
                                        unsigned int *pending) \
    { \
        struct call call = {.function = __func__}; \
        if (begin_device(&call, handle)) \
            call.result = put_uints((unsigned int *[]){current, pending}, \
                                    call.device->values[signal], 2); \
        return end(&call); \
    }

#endif
