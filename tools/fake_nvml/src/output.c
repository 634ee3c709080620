/* Writing an answer where the caller asked for it. */
#include "call.h"

#include <string.h>

nvmlReturn_t put_uint(unsigned int *out, int64_t value)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (value == UNSUPPORTED)
        return NVML_ERROR_NOT_SUPPORTED;
    *out = (unsigned int)value;
    return NVML_SUCCESS;
}

nvmlReturn_t put_uints(unsigned int *const *out, const int64_t *values, int count)
{
    for (int i = 0; i < count; i++) {
        if (!out[i])
            return NVML_ERROR_INVALID_ARGUMENT;
        if (values[i] == UNSUPPORTED)
            return NVML_ERROR_NOT_SUPPORTED;
    }
    for (int i = 0; i < count; i++)
        *out[i] = (unsigned int)values[i];
    return NVML_SUCCESS;
}

nvmlReturn_t put_u64(unsigned long long *out, int64_t value)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (value == UNSUPPORTED)
        return NVML_ERROR_NOT_SUPPORTED;
    *out = (unsigned long long)value;
    return NVML_SUCCESS;
}

nvmlReturn_t put_string(char *out, unsigned int length, const char *text)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, text);
    return NVML_SUCCESS;
}

int64_t row_sum(const struct device *device, enum signal signal)
{
    int64_t sum = UNSUPPORTED;
    for (int i = 0; i < MAX_LINKS; i++) {
        int64_t value = device->values[signal][i];
        if (value != UNSUPPORTED)
            sum = (sum == UNSUPPORTED ? 0 : sum) + value;
    }
    return sum;
}
