/* SPDX-License-Identifier: Apache-2.0 */
/* How the values of a configuration must fit together: names, addresses, geometry, roles.
 * Each complaint stands at the deepest key that exists on the path it names. */
#include "config_checking.h"
#include "config_schema.h"
#include "units.h"

#include "core/base.h"

#include <stdarg.h>

struct where where(const char *format, ...)
{
	struct where place;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(place.path, sizeof place.path, format, arguments);
	va_end(arguments);
	return place;
}

void complain(const struct checking *checking, struct where place, const char *format, ...)
{
	char what[REPORT_WHAT_BYTES];
	const struct tree *node = tree_nearest_node(checking->root, place.path);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(what, sizeof what, format, arguments);
	va_end(arguments);
	report_add(checking->report, (struct report_place){node->line, node->column, place.path},
		   "%s", what);
}

static bool same(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

/* ---- sites ---- */

/* A site whose name is a key of a path could not be told from that key. */
static bool name_is_path_key(const char *name)
{
	static const char *const keys[] = {"mtu", "rate", "port", "vlan", "udp_checksum"};
	for (unsigned i = 0; i < ARRAY_COUNT(keys); i++)
		if (same(name, keys[i]))
			return true;
	return false;
}

static void check_sites(const struct checking *checking)
{
	const struct config *config = checking->config;
	if (config->site_count == 1)
		complain(checking, where("sites"), "needs two sites");
	for (unsigned i = 0; i < config->site_count; i++) {
		const struct config_site *site = &config->site[i];
		if (name_is_path_key(site->name))
			complain(checking, where("sites[%u].name", i),
				 "\"%s\" is a key of link.paths; choose another name", site->name);
		if (i && same(site->name, config->site[0].name))
			complain(checking, where("sites[%u].name", i),
				 "\"%s\" is the name of sites[0] too", site->name);
		if (site->pin_count == 2 && same(site->pin[0], site->pin[1]))
			complain(checking, where("sites[%u].pins[1]", i), "the same as pins[0]");
		if (i && site->pin_count && same(site->pin[0], config->site[0].pin[0]))
			complain(
				checking, where("sites[%u].pins[0]", i),
				"is a pin of sites[0] too; each site has a certificate of its own");
	}
}

/* ---- paths ---- */

static uint32_t network_mask(uint8_t prefix_length)
{
	return prefix_length ? ~0u << (32 - prefix_length) : 0;
}

static bool networks_overlap(struct config_address a, struct config_address b)
{
	uint32_t mask =
		network_mask(a.prefix_length < b.prefix_length ? a.prefix_length : b.prefix_length);
	return ((a.ip ^ b.ip) & mask) == 0;
}

/* Two ports of one site in one network would both answer for it, and a reply could leave by the
 * wrong one. */
static void check_path_pair(const struct checking *checking, unsigned earlier, unsigned later)
{
	const struct config *config = checking->config;
	for (unsigned site = 0; site < config->site_count; site++) {
		const struct config_end *a = &config->path[earlier].end[site];
		const struct config_end *b = &config->path[later].end[site];
		const char *name = config->site[site].name;
		if (same(a->device, b->device))
			complain(checking, where("link.paths[%u].%s.device", later, name),
				 "\"%s\" is the device of paths[%u] too", b->device, earlier);
		if (!a->address.ip || !b->address.ip)
			continue;
		if (a->address.ip == b->address.ip)
			complain(checking, where("link.paths[%u].%s.address", later, name),
				 "is the address of paths[%u] too", earlier);
		else if (networks_overlap(a->address, b->address))
			complain(checking, where("link.paths[%u].%s.address", later, name),
				 "overlaps the network of paths[%u]", earlier);
	}
}

/* The server's socket is moved to its name once the ports run, which needs a name in a directory;
 * a client that looks for another kind of socket never finds it. */
static void check_memif(const struct checking *checking, unsigned index, unsigned site)
{
	const struct config *config = checking->config;
	const char *eal = config->path[index].end[site].eal;
	if (!eal || strncmp(eal, "net_memif", strlen("net_memif")) != 0 ||
	    !strstr(eal, ",socket=") || strstr(eal, ",socket-abstract=no"))
		return;
	complain(checking, where("link.paths[%u].%s.eal", index, config->site[site].name),
		 "a memif with a socket needs socket-abstract=no, at both ends");
}

static void check_path(const struct checking *checking, unsigned index)
{
	const struct config *config = checking->config;
	const struct config_path *path = &config->path[index];
	const struct config_address *a = &path->end[0].address, *b = &path->end[1].address;
	bool routed = path->end[0].gateway && path->end[1].gateway;
	for (unsigned site = 0; site < CONFIG_SITES; site++) {
		const struct config_end *end = &path->end[site];
		struct config_address gateway = {end->gateway, end->address.prefix_length};
		check_memif(checking, index, site);
		if (end->gateway && end->address.ip &&
		    (!networks_overlap(gateway, end->address) || gateway.ip == end->address.ip))
			complain(checking,
				 where("link.paths[%u].%s.gateway", index, config->site[site].name),
				 "is not another address in the network of this end");
	}
	if (!a->ip || !b->ip || config->site_count < CONFIG_SITES)
		return;
	if (a->ip == b->ip)
		complain(checking, where("link.paths[%u].%s.address", index, config->site[1].name),
			 "is the address of the other end too");
	else if (!routed && (!networks_overlap(*a, *b) || a->prefix_length != b->prefix_length))
		complain(checking, where("link.paths[%u].%s.address", index, config->site[1].name),
			 "is not in the network of the other end; routed ends need a gateway each");
}

static void check_paths(const struct checking *checking)
{
	const struct config *config = checking->config;
	for (unsigned later = 0; later < config->path_count; later++) {
		check_path(checking, later);
		for (unsigned earlier = 0; earlier < later; earlier++)
			check_path_pair(checking, earlier, later);
	}
}

/* ---- groups ---- */

/* Geometry of which a half was refused tells nothing about the rest. */
static bool geometry_known(const struct checking *checking, unsigned g)
{
	return checking->config->group[g].geometry.k &&
	       !tree_nearest_node(checking->root, where("groups[%u].parity", g).path)->refused;
}

static void check_geometry(const struct checking *checking, unsigned g)
{
	struct config_group *group = &checking->config->group[g];
	unsigned k = group->geometry.k, n = geometry_n(group->geometry);
	if (!geometry_known(checking, g))
		return;
	/* Presets fill what is missing, so parity is known here too. */
	if (!group->quorum &&
	    !tree_child(tree_nearest_node(checking->root, where("groups[%u]", g).path), "quorum"))
		group->quorum = (uint8_t)(k == 1 || n == k ? n : n - 1);
	if (group->quorum && (group->quorum < k || group->quorum > n))
		complain(checking, where("groups[%u].quorum", g),
			 "%u is not within data and data + parity (%u to %u)", group->quorum, k, n);
	/* A block is a power of two and a shard whole pages of it. */
	if (!is_power_of_2(k))
		complain(checking, where("groups[%u].data", g),
			 "%u does not cut a block into whole pages; use 1, 2, 4, 8 or 16", k);
	for (unsigned v = 0; v < group->volume_count; v++) {
		const struct config_volume *volume = &group->volume[v];
		char block[UNITS_TEXT_BYTES];
		struct where place = where("groups[%u].volumes[%u].block", g, v);
		units_format(UNITS_SIZE, volume->block_bytes, block);
		if (!volume->block_bytes)
			continue;
		if (!is_power_of_2(volume->block_bytes))
			complain(checking, place, "%s is not a power of two", block);
		else if (volume->block_bytes / k < PAGE_BYTES)
			complain(checking, place, "%s / %u data shards is less than 4KiB", block,
				 k);
		if (volume->size % volume->block_bytes)
			complain(checking, where("groups[%u].volumes[%u].size", g, v),
				 "is not a multiple of the block (%s)", block);
	}
}

static bool window_given(const struct checking *checking, unsigned g)
{
	return tree_child(tree_nearest_node(checking->root, where("groups[%u]", g).path), "window");
}

/* What was not durable when a primary crashed is at most its window, each block of it a record of
 * its own, and all of it goes to the journals as one catch-up that is not folded before its end
 * (docs/semantics.md "catch-up"). Twice that, since as much may still wait to be folded. */
static void check_window(const struct checking *checking, unsigned g)
{
	struct config_group *group = &checking->config->group[g];
	uint64_t shard = 0;
	char most[UNITS_TEXT_BYTES], least[UNITS_TEXT_BYTES];
	if (!geometry_known(checking, g) || !group->window_bytes || !group->journal_bytes)
		return;
	for (unsigned v = 0; v < group->volume_count; v++)
		shard = max_u64(shard, group->volume[v].block_bytes / group->geometry.k);
	if (shard < PAGE_BYTES)
		return;
	uint64_t row = shard * geometry_n(group->geometry), kept = 2 * (shard + PAGE_BYTES);
	uint64_t records = max_u64(group->window_bytes / row, WINDOW_RECORDS_MIN);
	uint64_t room = group->journal_bytes / kept;
	if (records <= room)
		return;
	if (room < WINDOW_RECORDS_MIN) {
		units_format(UNITS_SIZE, align_up(WINDOW_RECORDS_MIN * kept, MIB), least);
		complain(checking, where("groups[%u].journal", g),
			 "holds too little of a window; at least %s", least);
	} else if (window_given(checking, g)) {
		units_format(UNITS_SIZE, align_up(records * kept, MIB), least);
		units_format(UNITS_SIZE, align_down(room * row, MIB), most);
		complain(checking, where("groups[%u].window", g),
			 "what it keeps may not fit the journals after a crash; at most %s, or "
			 "journal at least %s",
			 most, least);
	} else {
		group->window_bytes = align_down(room * row, MIB);
	}
}

static void check_roles(const struct checking *checking, unsigned g)
{
	const struct config *config = checking->config;
	const struct config_group *group = &config->group[g];
	unsigned n = geometry_n(group->geometry);
	if (group->primary != SITE_UNKNOWN && group->primary == group->vault)
		complain(checking, where("groups[%u].vault", g), "is the primary too");
	for (unsigned site = 0; site < config->site_count; site++) {
		const char *name = config->site[site].name;
		unsigned count = group->store_count[site];
		if (!name || !geometry_known(checking, g))
			continue;
		if (count ? count != n : site == group->vault)
			complain(checking, where("groups[%u].stores.%s", g, name),
				 "%u stores, but data + parity is %u", count, n);
	}
	for (unsigned v = 0; v < group->volume_count; v++)
		if (group->primary < config->site_count &&
		    !group->volume[v].device[group->primary] && config->site[group->primary].name)
			complain(checking,
				 where("groups[%u].volumes[%u].device.%s", g, v,
				       config->site[group->primary].name),
				 "missing; the primary needs a device");
}

static void check_volume_name(const struct checking *checking, unsigned g, unsigned v)
{
	const struct config *config = checking->config;
	for (unsigned h = 0; h <= g; h++)
		for (unsigned w = 0; w < (h == g ? v : config->group[h].volume_count); w++)
			if (same(config->group[h].volume[w].name,
				 config->group[g].volume[v].name)) {
				complain(checking, where("groups[%u].volumes[%u].name", g, v),
					 "\"%s\" is the name of groups[%u].volumes[%u] too",
					 config->group[g].volume[v].name, h, w);
				return;
			}
}

static void check_names(const struct checking *checking, unsigned g)
{
	const struct config *config = checking->config;
	for (unsigned h = 0; h < g; h++)
		if (same(config->group[h].name, config->group[g].name)) {
			complain(checking, where("groups[%u].name", g),
				 "\"%s\" is the name of groups[%u] too", config->group[g].name, h);
			break;
		}
	for (unsigned v = 0; v < config->group[g].volume_count; v++)
		check_volume_name(checking, g, v);
}

void config_check(struct config *config, const struct tree *root, struct report *report)
{
	struct checking checking = {config, root, report};
	check_sites(&checking);
	for (unsigned site = 0; site < config->site_count; site++)
		if (config->site[site].name)
			check_files(&checking, site);
	if (!same(config->site[0].name, config->site[1].name))
		check_paths(&checking);
	for (unsigned g = 0; g < config->group_count; g++) {
		check_names(&checking, g);
		check_geometry(&checking, g);
		check_window(&checking, g);
		check_roles(&checking, g);
	}
	if (config->engine.lanes > 1)
		complain(&checking, where("engine.lanes"),
			 "more than 1 comes with a later release; use 1");
}
