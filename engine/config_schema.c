/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what may be configured. Order matters twice: it is the order of `config show`, and
 * sites stand first because all else names them. */
#include "config_schema.h"

#define AT(type, member) offsetof(struct type, member), sizeof(((struct type *)NULL)->member)
#define ENGINE(member)                                                                             \
	offsetof(struct config, engine.member), sizeof(((struct config *)NULL)->engine.member)
#define COUNT_AT(type, member) offsetof(struct type, member)
#define TABLE(fields)                                                                              \
	{                                                                                          \
		fields, ARRAY_COUNT(fields)                                                        \
	}

static const struct field_choice ack_choices[] = {
	[ACK_LOCAL] = {"local", NULL},
	[ACK_WIRE] = {"wire", "use received"},
	[ACK_RECEIVED] = {"received", NULL},
	[ACK_DURABLE] = {"durable", NULL},
	{NULL, NULL},
};
static const struct field_choice sync_choices[] = {{"write", NULL}, {"flush", NULL}, {NULL, NULL}};
static const struct field_choice yes_choices[] = {{"no", NULL}, {"yes", NULL}, {NULL, NULL}};
static const struct field_choice stall_choices[] = {
	[CONFIG_STALL_BLOCK] = {"block", NULL},
	[CONFIG_STALL_FAIL] = {"fail", "use block"},
	[CONFIG_STALL_CONTINUE] = {"continue", "use block"},
	{NULL, NULL},
};
static const struct field_choice aead_choices[] = {
	[CONFIG_AEAD_AUTO] = {"auto", NULL},
	[CONFIG_AEAD_OPENSSL] = {"openssl", NULL},
	[CONFIG_AEAD_IPSECMB] = {"ipsecmb", NULL},
	{NULL, NULL},
};
static const struct field_choice switch_choices[] = {
	[CONFIG_AUTO] = {"auto", NULL},
	[CONFIG_ON] = {"on", NULL},
	[CONFIG_OFF] = {"off", NULL},
	{NULL, NULL},
};

static const struct field site_fields[] = {
	{"name", FIELD_NAME, SITES_NO, AT(config_site, name),
	 .help = "name of the site; all else refers to it by this name"},
	{"certificate", FIELD_PATH, SITES_NO, AT(config_site, certificate),
	 .help = "PEM file of this site's certificate (casemate cert init makes it)"},
	{"key", FIELD_URI, SITES_NO, AT(config_site, key),
	 .help = "where the certificate's private key is; read at this site only"},
	{"ca", FIELD_PATH, SITES_NO, AT(config_site, ca),
	 .help = "PEM file of the CA that both certificates come from"},
	{"pins", FIELD_PIN, SITES_NO, AT(config_site, pin), .list_max = CONFIG_PINS_MAX,
	 .count_offset = COUNT_AT(config_site, pin_count),
	 .help = "fingerprint of this site's certificate: the current one and, if any, the next"},
	{"control", FIELD_PATH, SITES_NO, AT(config_site, control),
	 .help = "Unix socket on which the daemon answers the casemate command"},
	{"nbd", FIELD_LISTEN, SITES_NO, AT(config_site, nbd), .list_max = CONFIG_NBD_MAX,
	 .count_offset = COUNT_AT(config_site, nbd_count), .list_optional = true,
	 .help = "where NBD clients connect: unix:/path or tcp:address:port"},
	{"state", FIELD_PATH, SITES_NO, AT(config_site, state),
	 .help = "directory of the daemon's lock and run-time files"},
};
static const struct field_table site_table = TABLE(site_fields);

static const struct field end_fields[] = {
	{"device", FIELD_TEXT, SITES_NO, AT(config_end, device),
	 .help = "DPDK port: a PCI address such as 0000:3b:00.0, or a virtual device"},
	{"eal", FIELD_TEXT, SITES_NO, AT(config_end, eal), .optional = true,
	 .sample = "net_memif0,role=server,socket=/run/casemate/memif.sock,socket-abstract=no,"
		   "bsize=9216",
	 .help = "EAL --vdev argument that makes a virtual device"},
	{"address", FIELD_ADDRESS, SITES_NO, AT(config_end, address),
	 .help = "IPv4 address of the port, with the length of its network's prefix"},
	{"gateway", FIELD_IP, SITES_NO, AT(config_end, gateway), .optional = true,
	 .sample = "10.77.0.254",
	 .help = "router towards the peer, if it is not on the same network"},
};
static const struct field_table end_table = TABLE(end_fields);

static const struct field path_fields[] = {
	{"", FIELD_MAP, SITES_AS_KEYS, AT(config_path, end[0]), .table = &end_table,
	 .help = "the two ends, each under the name of its site"},
	{"mtu", FIELD_COUNT, SITES_NO, AT(config_path, mtu), .preset = "1500", .least = 1300,
	 .most = 9600, .help = "bytes of an IP packet that the path carries"},
	{"rate", FIELD_RATE, SITES_NO, AT(config_path, rate_bytes_per_s), .preset = "none",
	 .help = "share of the path that is never exceeded; none: as fast as it goes"},
	{"port", FIELD_COUNT, SITES_NO, AT(config_path, port), .preset = "4789", .least = 1,
	 .most = 65535, .help = "UDP port at both ends"},
	{"vlan", FIELD_COUNT, SITES_NO, AT(config_path, vlan), .preset = "0", .most = 4094,
	 .help = "VLAN of the path; 0: untagged"},
	{"udp_checksum", FIELD_CHOICE, SITES_NO, AT(config_path, udp_checksum), .preset = "yes",
	 .choice = yes_choices,
	 .help = "no: sent as 0, for less work; every datagram has a stronger tag of its own"},
};
static const struct field_table path_table = TABLE(path_fields);

/* The members of the link stand in struct config itself. */
static const struct field link_fields[] = {
	{"psk", FIELD_URI, SITES_NO, AT(config, psk), .optional = true,
	 .sample = "\"file:/etc/casemate/psk\"",
	 .help = "64 hex digits, the same at both sites, mixed into the session keys"},
	{"paths", FIELD_MAP, SITES_NO, AT(config, path), .list_max = PATHS_MAX,
	 .count_offset = COUNT_AT(config, path_count), .table = &path_table,
	 .help = "port to port; shards of a block are spread over all of them"},
};
static const struct field_table link_table = TABLE(link_fields);

static const struct field volume_fields[] = {
	{"name", FIELD_NAME, SITES_NO, AT(config_volume, name),
	 .help = "name of the volume, and of its NBD export"},
	{"size", FIELD_SIZE, SITES_NO, AT(config_volume, size), .least = BLOCK_BYTES_MIN,
	 .most = 256 * 1024 * GIB, .help = "a multiple of block"},
	{"block", FIELD_SIZE, SITES_NO, AT(config_volume, block_bytes), .preset = "64KiB",
	 .least = BLOCK_BYTES_MIN, .most = BLOCK_BYTES_MAX,
	 .help = "unit of sealing and coding: a power of two; block / data must be 4KiB or more"},
	{"device", FIELD_PATH, SITES_EACH, AT(config_volume, device[0]), .optional = true,
	 .help = "plain local copy, by site; needed at the primary"},
};
static const struct field_table volume_table = TABLE(volume_fields);

static const struct field group_fields[] = {
	{"name", FIELD_NAME, SITES_NO, AT(config_group, name),
	 .help = "volumes of a group share one write order and one history"},
	{"primary", FIELD_SITE, SITES_NO, AT(config_group, primary),
	 .help = "site that serves the group"},
	{"vault", FIELD_SITE, SITES_NO, AT(config_group, vault),
	 .help = "site that keeps its replica"},
	{"data", FIELD_COUNT, SITES_NO, AT(config_group, geometry.k), .preset = "4", .least = 1,
	 .most = DATA_SHARDS_MAX, .help = "k: data shards per block; 1 is mirroring"},
	{"parity", FIELD_COUNT, SITES_NO, AT(config_group, geometry.m), .preset = "2",
	 .most = PARITY_SHARDS_MAX,
	 .help = "m: parity shards; so many packets of a row, or stores, may be lost"},
	{"quorum", FIELD_COUNT, SITES_NO, AT(config_group, quorum), .optional = true, .least = 1,
	 .most = SHARDS_MAX,
	 .help = "stores that hold a write before it counts as durable: data <= quorum <= n, "
		 "n = data + parity; n - 1 unless given, and n when data is 1"},
	{"ack", FIELD_CHOICE, SITES_NO, AT(config_group, ack), .preset = "durable",
	 .choice = ack_choices,
	 .help = "a write is acknowledged when it is on the local device and: local: nothing more; "
		 "received:  in the memory of the vault; durable: synced on a quorum of its "
		 "stores"},
	{"sync", FIELD_CHOICE, SITES_NO, AT(config_group, sync_flush), .preset = "write",
	 .choice = sync_choices,
	 .help = "write: ack holds for every write; flush: for flush and FUA, as with a disk that "
		 "has a write cache"},
	{"on_stall", FIELD_CHOICE, SITES_NO, AT(config_group, on_stall), .preset = "block",
	 .choice = stall_choices, .help = "when ack cannot be met for a time: writes wait"},
	{"window", FIELD_SIZE, SITES_NO, AT(config_group, window_bytes), .preset = "128MiB",
	 .least = 4 * MIB, .most = 64 * GIB,
	 .help = "memory for packets kept until durable (primary) or stored (vault); unless "
		 "given, no more than the journals can take as one catch-up"},
	{"journal", FIELD_SIZE, SITES_NO, AT(config_group, journal_bytes), .preset = "256MiB",
	 .least = 16 * MIB, .most = 16 * 1024 * GIB, .help = "size of the journal of each store"},
	{"key", FIELD_URI, SITES_NO, AT(config_group, key),
	 .help = "key that wraps the volumes' keys; read at the primary only: the vault does not "
		 " need it, and promote is given it by hand"},
	{"volumes", FIELD_MAP, SITES_NO, AT(config_group, volume),
	 .list_max = VOLUMES_PER_GROUP_MAX, .count_offset = COUNT_AT(config_group, volume_count),
	 .table = &volume_table, .help = "the block devices of the group"},
	{"stores", FIELD_PATH, SITES_EACH, AT(config_group, store[0]), .list_max = SHARDS_MAX,
	 .count_offset = COUNT_AT(config_group, store_count[0]), .list_optional = true,
	 .help = "n directories, one per shard, best on a disk each; needed at the vault. Those "
		 "of a primary are not used: there is no failback yet"},
};
static const struct field_table group_table = TABLE(group_fields);

static const struct field engine_fields[] = {
	{"lanes", FIELD_COUNT, SITES_NO, ENGINE(lanes), .preset = "1", .least = 1, .most = 64,
	 .help = "workers: a core, a queue pair and an io_uring each"},
	{"cpu", FIELD_CPU, SITES_COMMON, ENGINE(cpu[0]), .preset = "any", .most = 1023,
	 .help = "CPU of the first lane, or any; one for both sites or one for each"},
	{"aead", FIELD_CHOICE, SITES_NO, ENGINE(aead), .preset = "auto", .choice = aead_choices,
	 .help = "auto | openssl | ipsecmb; auto takes the faster one"},
	{"hugepages", FIELD_CHOICE, SITES_NO, ENGINE(hugepages), .preset = "auto",
	 .choice = switch_choices,
	 .help = "auto | on | off; auto takes them where there are enough"},
	{"memory", FIELD_SIZE, SITES_NO, ENGINE(memory_bytes), .preset = "256MiB",
	 .least = 64 * MIB, .most = 1024 * GIB, .help = "memory of DPDK: packets and windows"},
	{"dpdk_args", FIELD_TEXT, SITES_NO, ENGINE(dpdk_arg), .list_max = CONFIG_ARGS_MAX,
	 .count_offset = offsetof(struct config, engine.dpdk_arg_count), .list_optional = true,
	 .help = "more EAL arguments, passed on as they are"},
};
static const struct field_table engine_table = TABLE(engine_fields);

static const struct field config_fields[] = {
	{"version", FIELD_COUNT, SITES_NO, AT(config, version), .least = 1, .most = 1,
	 .help = "of this format"},
	{"node", FIELD_NAME, SITES_NO, AT(config, node), .optional = true,
	 .help = "the site that this host is; --node overrides it, so that the file can be the "
		 "same "
		 "on both"},
	{"sites", FIELD_MAP, SITES_NO, AT(config, site), .list_max = CONFIG_SITES,
	 .count_offset = COUNT_AT(config, site_count), .table = &site_table,
	 .help = "the two data centres"},
	{"link", FIELD_MAP, SITES_NO, 0, sizeof(struct config), .table = &link_table,
	 .help = "how the sites are joined"},
	{"groups", FIELD_MAP, SITES_NO, AT(config, group), .list_max = GROUPS_MAX,
	 .count_offset = COUNT_AT(config, group_count), .table = &group_table,
	 .help = "what is replicated, and how"},
	{"engine", FIELD_MAP, SITES_NO, 0, sizeof(struct config), .optional = true,
	 .table = &engine_table, .help = "how the daemon uses the machine"},
};
const struct field_table config_schema = TABLE(config_fields);
