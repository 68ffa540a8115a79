/* SPDX-License-Identifier: Apache-2.0 */
/* The log: one line per event on stderr, "2025-01-31T12:00:00.123Z warning vol0: text", behind
 * "<N>" where stderr is systemd's journal, which takes the level from it. Never called from a lane:
 * its notes come out through the control thread. */
#ifndef CASEMATE_LOG_H
#define CASEMATE_LOG_H

#include "core/effects.h"

/* level: enum note_level; subject: a group, volume, path, or NULL. */
void log_line(unsigned level, const char *subject, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* A note of the core as a line. */
void log_note(const struct note *);

#endif
