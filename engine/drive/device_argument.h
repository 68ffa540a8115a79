/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the arguments of a virtual device, "net_memif0,role=server,bsize=9216": what DPDK knows of
 * its own devices does not tell all that we must know of them. */
#ifndef CASEMATE_DRIVE_DEVICE_ARGUMENT_H
#define CASEMATE_DRIVE_DEVICE_ARGUMENT_H

#include "core/base.h"

/* The value of key in a list of key=value between commas; false when it is not there or does not
 * fit. Arguments may be NULL. */
bool device_argument(const char *arguments, const char *key, char *value, size_t value_bytes);
/* The same as a number; otherwise when it is not there or is not one. */
uint32_t device_argument_number(const char *arguments, const char *key, uint32_t otherwise);
/* The name before the first comma. */
bool device_name(const char *arguments, char *name, size_t name_bytes);

#endif
