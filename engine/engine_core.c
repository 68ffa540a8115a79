/* SPDX-License-Identifier: Apache-2.0 */
/* From the configuration to what the core is told: roles, geometry, bounds, back ends. */
#include "engine.h"
#include "log.h"
#include "volume.h"

#include <errno.h>
#include <stdio.h>

enum { UDP_AND_IP_BYTES = 28 };

static void group_fill(const struct engine *engine, unsigned g, struct core_group *group)
{
	const struct config_group *config = &engine->config->group[g];

	snprintf(group->name, sizeof group->name, "%s", config->name);
	group->role = config->primary == engine->self ? ROLE_PRIMARY : ROLE_VAULT;
	group->geometry = config->geometry;
	group->quorum = config->quorum;
	group->ack = config->ack;
	group->sync_flush = config->sync_flush;
	group->window_bytes = config->window_bytes;
	group->volume_count = (uint8_t)config->volume_count;
	for (unsigned v = 0; v < config->volume_count; v++) {
		snprintf(group->volume[v].name, sizeof group->volume[v].name, "%s",
			 config->volume[v].name);
		group->volume[v].size = config->volume[v].size;
		group->volume[v].block_bytes = config->volume[v].block_bytes;
	}
}

static int aead_choose(const struct engine *engine, uint8_t *aead)
{
	switch (engine->config->engine.aead) {
	case CONFIG_AEAD_OPENSSL:
		*aead = AEAD_OPENSSL;
		return 0;
	case CONFIG_AEAD_IPSECMB:
		*aead = AEAD_IPSECMB;
		break;
	default:
		*aead = (uint8_t)aead_backend_best();
	}
	if (aead_backend_available(*aead))
		return 0;
	log_line(NOTE_ERROR, NULL, "engine.aead: %s is not available on this machine",
		 aead_backend_name(*aead));
	return -ENOTSUP;
}

int core_config_make(struct engine *engine)
{
	const struct config *config = engine->config;
	struct core_config *core = engine->core_config;

	core->group_count = (uint8_t)config->group_count;
	for (unsigned g = 0; g < config->group_count; g++)
		group_fill(engine, g, &core->group[g]);
	core->path_count = (uint8_t)config->path_count;
	for (unsigned p = 0; p < config->path_count; p++) {
		core->path[p].datagram_bytes_max = config->path[p].mtu - UDP_AND_IP_BYTES;
		core->path[p].rate_bytes_per_s = config->path[p].rate_bytes_per_s;
	}
	core->memory = &engine_memory;
	core->kernel = (uint8_t)stripe_kernel_best();
	int err = aead_choose(engine, &core->aead);
	if (err)
		return err;
	return volume_random(core->entropy, sizeof core->entropy);
}
