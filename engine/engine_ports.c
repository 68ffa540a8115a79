/* SPDX-License-Identifier: Apache-2.0 */
/* The lane's packet memory and its ports: DPDK is started for the devices that the paths name. */
#include "engine.h"
#include "log.h"

#include "drive/eal.h"
#include "drive/port_memory.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

_Static_assert((int)EAL_DEVICES_MAX >= (int)PATHS_MAX, "each path has a device");

static bool device_is_pci(const char *device)
{
	return strchr(device, ':') != NULL;
}

static int environment_start(struct engine *engine)
{
	const struct config *config = engine->config;
	char prefix[NAME_BYTES_MAX + 32], why[ENGINE_WHY_BYTES];
	unsigned pci = 0, vdev = 0;
	struct eal_config eal = {
		.hugepages = config->engine.hugepages,
		.memory_mib = (uint32_t)(config->engine.memory_bytes / MIB),
		.cpu = EAL_CPU_ANY,
		.file_prefix = prefix,
	};

	snprintf(prefix, sizeof prefix, "casemate-%s-%d", config->node, (int)getpid());
	for (unsigned p = 0; p < config->path_count; p++) {
		const struct config_end *end = &config->path[p].end[engine->self];
		if (end->eal)
			eal.vdev[vdev++] = end->eal;
		else if (device_is_pci(end->device))
			eal.pci[pci++] = end->device;
		else
			eal.vdev[vdev++] = end->device;
	}
	for (unsigned i = 0; i < config->engine.dpdk_arg_count && i < EAL_EXTRA_MAX; i++)
		eal.extra[i] = config->engine.dpdk_arg[i];
	int err = eal_start(&eal, why, sizeof why);
	if (err)
		log_line(NOTE_ERROR, NULL, "%s", why);
	return err;
}

static void port_config_fill(const struct engine *engine, unsigned p, struct port_config *out)
{
	const struct config_path *path = &engine->config->path[p];
	const struct config_end *own = &path->end[engine->self], *peer = &path->end[!engine->self];

	*out = (struct port_config){
		.path = (uint8_t)p,
		.local_ip = own->address.ip,
		.peer_ip = peer->address.ip,
		.gateway_ip = own->gateway,
		.prefix_length = own->address.prefix_length,
		.udp_port = path->port,
		.udp_source_port = (uint16_t)(49152 + p),
		.vlan = path->vlan,
		.udp_checksum = path->udp_checksum,
		.mtu = path->mtu,
		.packet_memory = engine->packet_memory,
		.packet_memory_bytes = engine->packet_memory_bytes,
	};
	snprintf(out->device, sizeof out->device, "%s", own->device);
}

static int port_open_one(struct engine *engine, unsigned p)
{
	struct port_config config;
	const char *why = NULL;

	port_config_fill(engine, p, &config);
	engine->port[p] = port_open(&config, &why);
	if (!engine->port[p]) {
		int err = errno ? -errno : -EIO;
		log_line(NOTE_ERROR, NULL, "path %u: %s: %s", p, config.device,
			 why ? why : strerror(-err));
		return err;
	}
	must(port_datagram_bytes_max(engine->port[p]) >=
		     engine->core_config->path[p].datagram_bytes_max,
	     "a port carries what its path says");
	return 0;
}

int ports_open(struct engine *engine)
{
	int err = environment_start(engine);

	if (err)
		return err;
	engine->packet_memory_bytes = core_packet_memory_bytes(engine->core_config);
	engine->packet_memory = packet_memory_new(engine->packet_memory_bytes);
	if (!engine->packet_memory) {
		log_line(NOTE_ERROR, NULL, "no memory for %llu MiB of packets",
			 (unsigned long long)(engine->packet_memory_bytes / MIB));
		return -ENOMEM;
	}
	for (unsigned p = 0; !err && p < engine->config->path_count; p++)
		err = port_open_one(engine, p);
	return err;
}

int ports_let_in(struct engine *engine)
{
	char why[ENGINE_WHY_BYTES];
	int err = eal_ports_started(why, sizeof why);

	if (err)
		log_line(NOTE_ERROR, NULL, "%s", why);
	return err;
}

bool ports_close(struct engine *engine)
{
	bool closed = true;

	eal_ports_stopping();
	for (unsigned p = 0; p < PATHS_MAX; p++)
		if (engine->port[p])
			closed &= !port_close(engine->port[p]);
	if (!closed)
		log_line(NOTE_WARNING, NULL, "a device did not close in time");
	return closed;
}
