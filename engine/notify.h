/* SPDX-License-Identifier: Apache-2.0 */
/* Tells the service manager how the daemon is doing (sd_notify(3), without libsystemd). Without
 * NOTIFY_SOCKET every call does nothing. */
#ifndef CASEMATE_NOTIFY_H
#define CASEMATE_NOTIFY_H

#include "core/base.h"

void notify_ready(void);
void notify_stopping(void);
void notify_watchdog(void);
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* How often notify_watchdog must be called, with reserve: half of what the manager allows.
 * NS_NEVER: it does not watch. */
ns_t notify_watchdog_interval(void);

#endif
