/* The part of NVML's binary interface that this library answers: Linux, LP64, natural alignment. */
#ifndef FAKE_NVML_NVML_H
#define FAKE_NVML_NVML_H

#include <assert.h>

#define NVML_API __attribute__((visibility("default")))

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

/* Only their addresses mean anything; see handle_of() in call.c. */
typedef struct opaque_device *nvmlDevice_t;
typedef struct event_set *nvmlEventSet_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType;
    unsigned long long eventData;
    unsigned int gpuInstanceId;
    unsigned int computeInstanceId;
} nvmlEventData_t;

typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device;
    unsigned int pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef union {
    double dVal;
    int siVal;
    unsigned int uiVal;
    unsigned long long ullVal;
} nvmlValue_t;

typedef struct {
    unsigned int fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned int valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;

typedef struct {
    unsigned int max, high, partial, low, none;
} nvmlRowRemapperHistogramValues_t;

typedef struct {
    unsigned long long referenceTime, violationTime;
} nvmlViolationTime_t;

typedef struct {
    unsigned int version;
    int marginTemperature;
} nvmlMarginTemperature_t;

typedef struct {
    unsigned int version, sensorType;
    int temperature;
} nvmlTemperature_t;

typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;

/* Versions 2 and 3 differ in the last member only. `state` is one byte and three of padding that
 * clients read as well, hence the whole word here. */
typedef struct {
    unsigned int version;
    unsigned char clusterUuid[16];
    nvmlReturn_t status;
    unsigned int cliqueId, state, healthMask;
} nvmlGpuFabricInfo_v2_t;

typedef struct {
    nvmlGpuFabricInfo_v2_t v2;
    unsigned char healthSummary;
} nvmlGpuFabricInfo_v3_t;

typedef struct {
    unsigned int version;
    unsigned long long aggregateUncParity, aggregateUncSecDed, aggregateCor;
    unsigned long long volatileUncParity, volatileUncSecDed, volatileCor;
    unsigned long long aggregateUncBucket[5]; /* L2, SM, PCIe, microcontrollers, other */
    unsigned int bThresholdExceeded;
} nvmlEccSramErrorStatus_t;

typedef struct {
    unsigned int version, bChannelRepairPending, bTpcRepairPending;
} nvmlRepairStatus_t;

typedef struct {
    unsigned int multiprocessorCount;
    unsigned int sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount;
    unsigned int sharedJpegCount, sharedOfaCount;
    unsigned int gpuInstanceSliceCount, computeInstanceSliceCount;
    unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;

static_assert(sizeof(nvmlEventData_t) == 32, "ABI");
static_assert(sizeof(nvmlPciInfo_t) == 68, "ABI");
static_assert(sizeof(nvmlMemory_t) == 24, "ABI");
static_assert(sizeof(nvmlMemory_v2_t) == 40, "ABI");
static_assert(sizeof(nvmlFieldValue_t) == 40, "ABI");
static_assert(sizeof(nvmlRowRemapperHistogramValues_t) == 20, "ABI");
static_assert(sizeof(nvmlViolationTime_t) == 16, "ABI");
static_assert(sizeof(nvmlMarginTemperature_t) == 8, "ABI");
static_assert(sizeof(nvmlTemperature_t) == 12, "ABI");
static_assert(sizeof(nvmlUtilization_t) == 8, "ABI");
static_assert(sizeof(nvmlGpuFabricInfo_v2_t) == 36, "ABI");
static_assert(sizeof(nvmlGpuFabricInfo_v3_t) == 40, "ABI");
static_assert(sizeof(nvmlEccSramErrorStatus_t) == 104, "ABI");
static_assert(sizeof(nvmlRepairStatus_t) == 12, "ABI");
static_assert(sizeof(nvmlDeviceAttributes_t) == 40, "ABI");

/* What a caller must have written into `version` of a versioned struct. */
#define NVML_STRUCT_VERSION(type, version) ((unsigned int)sizeof(type) | (version) << 24)

#endif
