/* Every number a GPU reports, once. A signal is a row of values: one value, one per NVLink, one per
 * memory location and so on. An element that holds UNSUPPORTED makes NVML say NOT_SUPPORTED.
 *
 * SIGNAL(identifier, name, width, what a GPU reset does to it)
 */
#ifndef FAKE_NVML_SIGNALS_H
#define FAKE_NVML_SIGNALS_H

#include <stdint.h>

#define UNSUPPORTED INT64_MIN
#define MAX_LINKS 36

#define SIGNALS(SIGNAL) \
    SIGNAL(MINOR_NUMBER, "minor-number", 1, KEEP) \
    SIGNAL(PCI_DEVICE_ID, "pci-device-id", 1, KEEP) \
    SIGNAL(PCI_SUBSYSTEM_ID, "pci-subsystem-id", 1, KEEP) \
    SIGNAL(ARCHITECTURE, "architecture", 1, KEEP) \
    SIGNAL(COMPUTE_CAPABILITY, "compute-capability", 2, KEEP) /* major, minor */ \
    SIGNAL(MEMORY_TOTAL, "memory-total", 1, KEEP) /* bytes */ \
    SIGNAL(MEMORY_RESERVED, "memory-reserved", 1, KEEP) \
    SIGNAL(MEMORY_USED, "memory-used", 1, ZERO) \
    SIGNAL(EVENT_TYPES_SUPPORTED, "event-types", 1, KEEP) \
    SIGNAL(PERSISTENCE_MODE, "persistence-mode", 1, KEEP) \
    SIGNAL(PERFORMANCE_STATE, "performance-state", 1, KEEP) \
    SIGNAL(UTILIZATION, "utilization", 2, ZERO) /* gpu, memory; percent */ \
    SIGNAL(MIG_MODE, "mig-mode", 2, KEEP) /* current, pending */ \
    SIGNAL(MIG_SLOTS, "mig-slots", 1, KEEP) \
    SIGNAL(ECC_MODE, "ecc-mode", 2, KEEP) /* current, pending */ \
    /* by location: L1, L2, DRAM, register file, texture, shared texture, CBU, SRAM */ \
    SIGNAL(ECC_VOLATILE_CORRECTED, "ecc-volatile-corrected", 8, ZERO) \
    SIGNAL(ECC_VOLATILE_UNCORRECTED, "ecc-volatile-uncorrected", 8, ZERO) \
    SIGNAL(ECC_AGGREGATE_CORRECTED, "ecc-aggregate-corrected", 8, KEEP) \
    SIGNAL(ECC_AGGREGATE_UNCORRECTED, "ecc-aggregate-uncorrected", 8, KEEP) \
    /* uncorrected by parity, uncorrected by SEC-DED, corrected */ \
    SIGNAL(SRAM_VOLATILE, "sram-volatile", 3, ZERO) \
    SIGNAL(SRAM_AGGREGATE, "sram-aggregate", 3, KEEP) \
    SIGNAL(SRAM_BUCKET, "sram-bucket", 5, KEEP) /* L2, SM, PCIe, microcontrollers, other */ \
    SIGNAL(SRAM_THRESHOLD_EXCEEDED, "sram-threshold-exceeded", 1, KEEP) \
    SIGNAL(RETIRED_PAGES, "retired-pages", 2, KEEP) /* single-bit, double-bit */ \
    SIGNAL(RETIRED_PAGES_PENDING, "retired-pages-pending", 1, ZERO) \
    SIGNAL(REMAPPED_ROWS, "remapped-rows", 2, KEEP) /* correctable, uncorrectable */ \
    SIGNAL(REMAP_PENDING, "remap-pending", 1, ZERO) \
    SIGNAL(REMAP_FAILURE, "remap-failure", 1, KEEP) \
    SIGNAL(REMAP_BANKS, "remap-banks", 5, KEEP) /* max, high, partial, low, none */ \
    SIGNAL(BANK_REMAP, "bank-remap", 5, KEEP) /* active, inactive, max, none, pending */ \
    SIGNAL(REPAIR_PENDING, "repair-pending", 2, ZERO) /* channel, TPC */ \
    SIGNAL(TEMPERATURE, "temperature", 1, KEEP) /* all temperatures in degrees Celsius */ \
    SIGNAL(MEMORY_TEMPERATURE, "memory-temperature", 1, KEEP) \
    SIGNAL(TEMPERATURE_MARGIN, "temperature-margin", 1, KEEP) \
    /* shutdown, slowdown, memory maximum, GPU maximum */ \
    SIGNAL(TEMPERATURE_THRESHOLD, "temperature-threshold", 4, KEEP) \
    SIGNAL(T_LIMIT, "t-limit", 4, KEEP) \
    SIGNAL(CLOCK_REASONS, "clock-reasons", 1, KEEP) \
    SIGNAL(SUPPORTED_CLOCK_REASONS, "supported-clock-reasons", 1, KEEP) \
    SIGNAL(POWER_USAGE, "power-usage", 1, KEEP) /* all power in milliwatts */ \
    SIGNAL(POWER_LIMIT, "power-limit", 1, KEEP) \
    SIGNAL(POWER_LIMIT_ENFORCED, "power-limit-enforced", 1, KEEP) \
    SIGNAL(VIOLATION_TIME, "violation-time", 12, ZERO) /* ns, by NVML performance policy */ \
    SIGNAL(SLOWDOWN_TIME, "slowdown-time", 3, ZERO) /* ns: software, hardware, power brake */ \
    SIGNAL(PCIE_GENERATION, "pcie-generation", 1, KEEP) \
    SIGNAL(PCIE_WIDTH, "pcie-width", 1, KEEP) \
    SIGNAL(PCIE_MAX_GENERATION, "pcie-max-generation", 1, KEEP) \
    SIGNAL(PCIE_MAX_WIDTH, "pcie-max-width", 1, KEEP) \
    SIGNAL(PCIE_REPLAYS, "pcie-replays", 1, ZERO) \
    SIGNAL(PCIE_ERRORS, "pcie-errors", 11, ZERO) /* in the order of fields 173 to 183 */ \
    SIGNAL(NVLINK_STATE, "nvlink-state", MAX_LINKS, KEEP) \
    SIGNAL(NVLINK_VERSION, "nvlink-version", MAX_LINKS, KEEP) \
    SIGNAL(NVLINK_REPLAY, "nvlink-replay", MAX_LINKS, ZERO) /* these five: up to NVLink 4 */ \
    SIGNAL(NVLINK_RECOVERY, "nvlink-recovery", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_CRC_FLIT, "nvlink-crc-flit", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_CRC_DATA, "nvlink-crc-data", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_ECC_DATA, "nvlink-ecc-data", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_MALFORMED_PACKETS, "nvlink-malformed-packets", MAX_LINKS, ZERO) /* NVLink 5 */ \
    SIGNAL(NVLINK_BUFFER_OVERRUNS, "nvlink-buffer-overruns", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_RECEIVE_ERRORS, "nvlink-receive-errors", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_REMOTE_ERRORS, "nvlink-remote-errors", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_GENERAL_ERRORS, "nvlink-general-errors", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_INTEGRITY_ERRORS, "nvlink-integrity-errors", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_TRANSMIT_DISCARDS, "nvlink-transmit-discards", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_RECOVERIES_DONE, "nvlink-recoveries-done", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_RECOVERIES_FAILED, "nvlink-recoveries-failed", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_RECOVERIES, "nvlink-recoveries", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_EFFECTIVE_ERRORS, "nvlink-effective-errors", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_EFFECTIVE_BER, "nvlink-effective-ber", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_SYMBOL_ERRORS, "nvlink-symbol-errors", MAX_LINKS, ZERO) \
    SIGNAL(NVLINK_SYMBOL_BER, "nvlink-symbol-ber", MAX_LINKS, ZERO) \
    SIGNAL(FABRIC_STATE, "fabric-state", 1, KEEP) \
    SIGNAL(FABRIC_STATUS, "fabric-status", 1, KEEP) \
    SIGNAL(FABRIC_CLIQUE, "fabric-clique", 1, KEEP) \
    SIGNAL(FABRIC_HEALTH_MASK, "fabric-health-mask", 1, KEEP) \
    SIGNAL(FABRIC_HEALTH_SUMMARY, "fabric-health-summary", 1, KEEP) \
    SIGNAL(RECOVERY_ACTION, "recovery-action", 1, ZERO)

#define SIGNAL_IDENTIFIER(identifier, name, width, reset) identifier,
enum signal { SIGNALS(SIGNAL_IDENTIFIER) SIGNAL_COUNT };
#undef SIGNAL_IDENTIFIER

#endif
