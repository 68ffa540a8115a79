/* SPDX-License-Identifier: Apache-2.0 */
/* Link headers: Ethernet (VLAN optional), ARP, IPv4, UDP and the ping that operators try first.
 * Pure bytes in and out; who is asked, answered or believed is decided in drive/. Frames come from
 * strangers: every length is checked here, once (docs/protocol.md "frames"). */
#ifndef CASEMATE_CORE_FRAME_H
#define CASEMATE_CORE_FRAME_H

#include "base.h"

enum {
	MAC_BYTES = 6,
	FRAME_ETHERNET_BYTES = 14,
	FRAME_VLAN_BYTES = 4,
	FRAME_IPV4_BYTES = 20, /* without options: we send none */
	FRAME_UDP_BYTES = 8,
	FRAME_ARP_BYTES = 28,
	FRAME_LINK_BYTES_MAX = FRAME_ETHERNET_BYTES + FRAME_VLAN_BYTES,
	FRAME_HEADER_BYTES_MAX = FRAME_LINK_BYTES_MAX + FRAME_IPV4_BYTES + FRAME_UDP_BYTES,
	FRAME_BYTES_MIN = 60, /* what Ethernet pads to, without its check sequence */
};

struct mac {
	uint8_t bytes[MAC_BYTES];
};

static inline bool mac_equal(const struct mac *a, const struct mac *b)
{
	return memcmp(a->bytes, b->bytes, MAC_BYTES) == 0;
}

/* The two ends of a path. Addresses, ports and the VLAN (0: none) in host order. */
struct frame_flow {
	struct mac local, peer;
	uint32_t local_ip, peer_ip;
	uint16_t source_port, destination_port;
	uint16_t vlan;
	bool udp_checksum; /* made of every datagram; else sent as 0: none was made */
};

/* The headers of a flow, ready but for the two lengths and the checksums. */
struct frame_template {
	uint8_t bytes[FRAME_HEADER_BYTES_MAX];
	uint32_t length;
	uint32_t ip_sum;  /* of the IPv4 header with length and checksum 0 */
	uint32_t udp_sum; /* of the UDP header and its pseudo header, the same */
	bool udp_checksum;
};

void frame_template_init(struct frame_template *, const struct frame_flow *);
/* Writes the headers in front of the datagram (FRAME_HEADER_BYTES_MAX of room) and gives their
 * length. DF is set. */
uint32_t frame_prepend(const struct frame_template *, uint8_t *datagram, uint32_t length);

enum frame_kind {
	FRAME_OTHER,	/* well formed as far as read, but nothing we speak; also IP fragments */
	FRAME_DATAGRAM, /* UDP over IPv4 */
	FRAME_ARP_REQUEST,
	FRAME_ARP_REPLY,
	FRAME_PING, /* ICMP echo request */
};

struct frame {
	struct mac source, destination; /* of the Ethernet header */
	struct mac arp_sender;
	uint16_t vlan;
	uint32_t source_ip, destination_ip; /* ARP: of sender and target */
	uint16_t source_port, destination_port;
	uint32_t payload_offset, payload_length; /* UDP payload, or the whole ICMP message */
};

/* An enum frame_kind; -EMSGSIZE when a length lies; -EBADMSG when a checksum is wrong. A UDP
 * checksum of 0 is accepted. Bytes after the IP packet are padding. */
int frame_parse(struct frame *, const uint8_t *bytes, uint32_t length);

/* Writes an ARP frame, padded to FRAME_BYTES_MIN, and gives its length. kind: FRAME_ARP_REQUEST
 * (goes to all) or FRAME_ARP_REPLY (goes to peer). room >= FRAME_BYTES_MIN, asserted. */
uint32_t frame_arp(enum frame_kind, const struct frame_flow *, uint8_t *out, uint32_t room);
/* Writes the answer to a parsed FRAME_PING; its length, or 0 when there is no room. */
uint32_t frame_pong(const struct frame *ping, const uint8_t *ping_bytes, uint8_t *out,
		    uint32_t room);

/* The Internet checksum (RFC 1071) over bytes, started with sum: 0xffff when right over a field
 * that holds it, else the complement of what belongs there. */
uint16_t frame_checksum(uint32_t sum, const uint8_t *bytes, uint32_t length);

#endif
