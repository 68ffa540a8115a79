/* SPDX-License-Identifier: Apache-2.0 */
/* What `casemate status` is told: the core's figures as JSON, schema 1. Keys are only ever added.
 */
#ifndef CASEMATE_STATUS_H
#define CASEMATE_STATUS_H

#include "config.h"
#include "drive/lane.h"
#include "front/nbd_server.h"
#include "session/session.h"

/* gives: {"schema": 1, "node": ..., "linked": ..., "groups": [...], "paths": [...]}. The status is
 * of the site config->self. */
json_t *status_json(const struct core_status *, const struct config *);
/* gives: {"turns": ..., "cycles": {"receive": ..., "idle": ...}, "ports": [...], "disk": {...}}:
 * where the time of the lane's thread went, in ticks of the time stamp counter, since it started.
 */
json_t *status_lane_json(const struct lane_counters *, unsigned port_count);
/* gives: {"connections": ..., "refused": ..., "bad_streams": ..., ...}: the NBD clients. */
json_t *status_clients_json(const struct nbd_server_figures *);
/* gives: {"established": ..., "malformed": ..., ..., "trouble": ...}. trouble: why there is no
 * session, "" when there is no such reason. */
json_t *status_handshake_json(const struct session_stats *, const char *trouble);

#endif
