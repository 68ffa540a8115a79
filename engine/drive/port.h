/* SPDX-License-Identifier: Apache-2.0 */
/* A port: one local Ethernet device that carries one path. Real (port_dpdk.c: any ethdev, PCI or
 * virtual) or simulated (tests/sim), chosen by the linker. Datagrams in, datagrams out; Ethernet,
 * ARP, ping, IPv4 and UDP stay below. One lane owns it. */
#ifndef CASEMATE_DRIVE_PORT_H
#define CASEMATE_DRIVE_PORT_H

#include "core/io.h"

struct port;
struct port_config {
	char device[64];			/* ethdev name: "0000:3b:00.0", "net_memif0" */
	uint8_t path;				/* its index, stamped on packets */
	uint32_t local_ip, peer_ip, gateway_ip; /* host order; gateway 0: the peer is on the link */
	uint8_t prefix_length;
	uint16_t udp_port;	  /* destination at both ends */
	uint16_t udp_source_port; /* differs by lane and path */
	uint16_t vlan;		  /* 0: none */
	bool udp_checksum;	  /* made in software: virtual devices have no offload */
	uint32_t mtu;		  /* IP packet bytes */
	void *packet_memory;	  /* where cells live, for external buffers */
	uint64_t packet_memory_bytes;
};
struct port_stats {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, tx_dropped;
	uint64_t rx_not_ours, rx_bad_checksum, rx_bad_length, arp_answered, ping_answered,
		linearised, no_neighbour;
	uint64_t driver_missed;
	bool link_up;
	bool next_hop_known; /* its link address: datagrams do go out */
	char driver[32];
};

/* gives; NULL with errno and *why a static line. */
struct port *port_open(const struct port_config *, const char **why);
/* 0; or a negative errno: the device hangs, and uses its memory, the cells' too, until the process
 * ends. */
int port_close(struct port *);
/* Received datagrams; they stay valid until the next port_receive of this port. */
unsigned port_receive(struct port *, struct packet *, unsigned max, ns_t now);
/* Takes cells (sets in_port); all are taken: what cannot be sent is dropped and counted, as a
 * network would. */
void port_send(struct port *, struct cell *const *, unsigned count, ns_t now);
/* Cells that the device no longer reads. */
unsigned port_sent(struct port *, struct cell **, unsigned max);
/* Timers of the port itself (ARP, reconnecting a memif): call once a turn; gives the next deadline.
 */
ns_t port_turn(struct port *, ns_t now);
void port_stats(const struct port *, struct port_stats *);
/* Largest UDP payload it carries. */
uint32_t port_datagram_bytes_max(const struct port *);

#endif
