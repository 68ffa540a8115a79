/* SPDX-License-Identifier: Apache-2.0 */
/* What `casemate status` is told: the core's figures as JSON, schema 1. Keys are only ever added.
 */
#ifndef CASEMATE_STATUS_H
#define CASEMATE_STATUS_H

#include "config.h"
#include "drive/lane.h"

/* gives: {"schema": 1, "node": ..., "linked": ..., "groups": [...], "paths": [...]}. The status is
 * of the site config->self. */
json_t *status_json(const struct core_status *, const struct config *);
/* gives: {"turns": ..., "cycles": {"receive": ..., "idle": ...}, "ports": [...], "disk": {...}}:
 * where the time of the lane's thread went, in ticks of the time stamp counter, since it started.
 */
json_t *status_lane_json(const struct lane_counters *, unsigned port_count);

#endif
