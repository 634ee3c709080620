/* nvmlDeviceGetFieldValues: field number -> signal. */
#include "call.h"

#include <time.h>

enum value_type { UINT = 1, U64 = 3, INT = 5 };

/* Which element of the signal's row a field shows, when it is not always the same one. */
enum { BY_SCOPE = -1, SUM = -2, COUNT_OF = -3 };

static const struct field {
    unsigned int id;
    enum signal signal;
    int element;
    enum value_type type;
} fields[] = {
    {1, ECC_MODE, 0, UINT},
    {2, ECC_MODE, 1, UINT},
    {3, ECC_VOLATILE_CORRECTED, SUM, U64},
    {4, ECC_VOLATILE_UNCORRECTED, SUM, U64},
    {5, ECC_AGGREGATE_CORRECTED, SUM, U64},
    {6, ECC_AGGREGATE_UNCORRECTED, SUM, U64},
    {7, ECC_VOLATILE_CORRECTED, 0, U64},
    {8, ECC_VOLATILE_UNCORRECTED, 0, U64},
    {9, ECC_VOLATILE_CORRECTED, 1, U64},
    {10, ECC_VOLATILE_UNCORRECTED, 1, U64},
    {11, ECC_VOLATILE_CORRECTED, 2, U64},
    {12, ECC_VOLATILE_UNCORRECTED, 2, U64},
    {13, ECC_VOLATILE_CORRECTED, 3, U64},
    {14, ECC_VOLATILE_UNCORRECTED, 3, U64},
    {15, ECC_VOLATILE_CORRECTED, 4, U64},
    {16, ECC_VOLATILE_UNCORRECTED, 4, U64},
    {17, ECC_VOLATILE_UNCORRECTED, 6, U64},
    {18, ECC_AGGREGATE_CORRECTED, 0, U64},
    {19, ECC_AGGREGATE_UNCORRECTED, 0, U64},
    {20, ECC_AGGREGATE_CORRECTED, 1, U64},
    {21, ECC_AGGREGATE_UNCORRECTED, 1, U64},
    {22, ECC_AGGREGATE_CORRECTED, 2, U64},
    {23, ECC_AGGREGATE_UNCORRECTED, 2, U64},
    {24, ECC_AGGREGATE_CORRECTED, 3, U64},
    {25, ECC_AGGREGATE_UNCORRECTED, 3, U64},
    {26, ECC_AGGREGATE_CORRECTED, 4, U64},
    {27, ECC_AGGREGATE_UNCORRECTED, 4, U64},
    {28, ECC_AGGREGATE_UNCORRECTED, 6, U64},
    {29, RETIRED_PAGES, 0, U64},
    {30, RETIRED_PAGES, 1, U64},
    {31, RETIRED_PAGES_PENDING, 0, UINT},
    {38, NVLINK_CRC_FLIT, SUM, U64},
    {45, NVLINK_CRC_DATA, SUM, U64},
    {52, NVLINK_REPLAY, SUM, U64},
    {59, NVLINK_RECOVERY, SUM, U64},
    {74, VIOLATION_TIME, 0, U64},
    {75, VIOLATION_TIME, 1, U64},
    {76, VIOLATION_TIME, 2, U64},
    {77, VIOLATION_TIME, 3, U64},
    {78, VIOLATION_TIME, 4, U64},
    {79, VIOLATION_TIME, 5, U64},
    {80, VIOLATION_TIME, 10, U64},
    {81, VIOLATION_TIME, 11, U64},
    {82, MEMORY_TEMPERATURE, 0, UINT},
    {91, NVLINK_STATE, COUNT_OF, UINT},
    {94, PCIE_REPLAYS, 0, U64},
    {142, REMAPPED_ROWS, 0, UINT},
    {143, REMAPPED_ROWS, 1, UINT},
    {144, REMAP_PENDING, 0, UINT},
    {145, REMAP_FAILURE, 0, UINT},
    {160, NVLINK_ECC_DATA, SUM, U64},
    {161, NVLINK_REPLAY, BY_SCOPE, U64},
    {162, NVLINK_RECOVERY, BY_SCOPE, U64},
    {163, NVLINK_CRC_FLIT, BY_SCOPE, U64},
    {165, NVLINK_STATE, BY_SCOPE, UINT},
    {166, NVLINK_VERSION, BY_SCOPE, UINT},
    {173, PCIE_ERRORS, 0, UINT},
    {174, PCIE_ERRORS, 1, UINT},
    {175, PCIE_ERRORS, 2, UINT},
    {176, PCIE_ERRORS, 3, UINT},
    {177, PCIE_ERRORS, 4, UINT},
    {178, PCIE_ERRORS, 5, UINT},
    {179, PCIE_ERRORS, 6, UINT},
    {180, PCIE_ERRORS, 7, UINT},
    {181, PCIE_ERRORS, 8, UINT},
    {182, PCIE_ERRORS, 9, UINT},
    {183, PCIE_ERRORS, 10, UINT},
    {185, POWER_USAGE, 0, UINT},
    {186, POWER_USAGE, 0, UINT},
    {190, POWER_LIMIT, 0, UINT},
    {193, T_LIMIT, 0, INT},
    {194, T_LIMIT, 1, INT},
    {195, T_LIMIT, 2, INT},
    {196, T_LIMIT, 3, INT},
    {206, NVLINK_MALFORMED_PACKETS, BY_SCOPE, U64},
    {207, NVLINK_BUFFER_OVERRUNS, BY_SCOPE, U64},
    {208, NVLINK_RECEIVE_ERRORS, BY_SCOPE, U64},
    {209, NVLINK_REMOTE_ERRORS, BY_SCOPE, U64},
    {210, NVLINK_GENERAL_ERRORS, BY_SCOPE, U64},
    {211, NVLINK_INTEGRITY_ERRORS, BY_SCOPE, U64},
    {212, NVLINK_TRANSMIT_DISCARDS, BY_SCOPE, U64},
    {213, NVLINK_RECOVERIES_DONE, BY_SCOPE, U64},
    {214, NVLINK_RECOVERIES_FAILED, BY_SCOPE, U64},
    {215, NVLINK_RECOVERIES, BY_SCOPE, U64},
    {219, NVLINK_EFFECTIVE_ERRORS, BY_SCOPE, U64},
    {220, NVLINK_EFFECTIVE_BER, BY_SCOPE, U64},
    {221, NVLINK_SYMBOL_ERRORS, BY_SCOPE, U64},
    {222, NVLINK_SYMBOL_BER, BY_SCOPE, U64},
    {230, RECOVERY_ACTION, 0, UINT},
    {269, SLOWDOWN_TIME, 0, U64},
    {270, SLOWDOWN_TIME, 1, U64},
    {271, SLOWDOWN_TIME, 2, U64},
    {303, BANK_REMAP, 0, UINT},
    {304, BANK_REMAP, 1, UINT},
    {305, BANK_REMAP, 2, UINT},
    {306, BANK_REMAP, 3, UINT},
    {307, BANK_REMAP, 4, UINT},
};

static const struct field *find_field(unsigned int id)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].id == id)
            return &fields[i];
    return NULL;
}

static int64_t count_of(const struct device *device, enum signal signal)
{
    int64_t count = 0;
    for (int i = 0; i < MAX_LINKS; i++)
        count += device->values[signal][i] != UNSUPPORTED;
    return count;
}

static int64_t read_field(const struct device *device, const struct field *field,
                          unsigned int scope)
{
    bool counts_ecc = field->signal >= ECC_VOLATILE_CORRECTED &&
                      field->signal <= ECC_AGGREGATE_UNCORRECTED;
    if (counts_ecc && device->values[ECC_MODE][0] != 1)
        return UNSUPPORTED;
    switch (field->element) {
    case SUM:
        return row_sum(device, field->signal);
    case COUNT_OF:
        return count_of(device, field->signal);
    case BY_SCOPE:
        return scope < MAX_LINKS ? device->values[field->signal][scope] : UNSUPPORTED;
    default:
        return device->values[field->signal][field->element];
    }
}

static void fill(const struct device *device, nvmlFieldValue_t *out, long long timestamp)
{
    const struct field *field = find_field(out->fieldId);
    int64_t value = field ? read_field(device, field, out->scopeId) : UNSUPPORTED;
    out->timestamp = timestamp;
    out->latencyUsec = 0;
    out->value.ullVal = 0;
    out->valueType = field ? field->type : UINT;
    out->nvmlReturn = value == UNSUPPORTED ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
    if (value == UNSUPPORTED)
        return;
    if (out->valueType == U64)
        out->value.ullVal = (unsigned long long)value;
    else if (out->valueType == INT)
        out->value.siVal = (int)value;
    else
        out->value.uiVal = (unsigned int)value;
}

static long long wall_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000ll + now.tv_nsec / 1000;
}

NVML_API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count,
                                               nvmlFieldValue_t *values)
{
    struct call call = {.function = __func__};
    if (!begin_device(&call, handle))
        return end(&call);
    if (!values || count <= 0) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    long long now = wall_clock_us();
    /* Succeeds even when no field is supported: each value carries its own return code. */
    for (int i = 0; i < count; i++)
        fill(call.device, &values[i], now);
    return end(&call);
}
