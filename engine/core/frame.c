/* SPDX-License-Identifier: Apache-2.0 */
/* Link headers, read and written byte by byte: behind a 14-byte Ethernet header every IPv4 field is
 * misaligned, so nothing here overlays a struct. */
#include "frame.h"

#include <errno.h>

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	ETHERTYPE_VLAN = 0x8100,
	VLAN_ID_MASK = 0x0fff,
	PROTOCOL_ICMP = 1,
	PROTOCOL_UDP = 17,
	IP_FLAG_DF = 0x4000,
	IP_FRAGMENT_MASK = 0x3fff, /* more fragments, and the offset */
	IP_TTL = 64,
	CHECKSUM_BLOCK_BYTES = 64,
	ICMP_BYTES = 8,
	ICMP_ECHO = 8,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
};

/* Network byte order, any alignment. */
static uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)get_be16(p) << 16 | get_be16(p + 2);
}

static void put_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	put_be16(p, (uint16_t)(v >> 16));
	put_be16(p + 2, (uint16_t)v);
}

static uint16_t checksum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* 64 bytes at a time, as the words of 32 bits that they are: 16 bytes in two lanes of 64 bits,
 * whose upper halves take the carries of 2^32 words. */
static uint64_t checksum_blocks(const uint8_t *bytes, uint32_t blocks)
{
	typedef uint64_t lanes __attribute__((vector_size(16)));
	const lanes low = {UINT32_MAX, UINT32_MAX};
	lanes sum = {0}, word[CHECKSUM_BLOCK_BYTES / sizeof(lanes)];
	for (; blocks > 0; blocks--, bytes += sizeof word) {
		memcpy(word, bytes, sizeof word);
		lanes lower = (word[0] & low) + (word[1] & low) + (word[2] & low) + (word[3] & low);
		lanes upper = (word[0] >> 32) + (word[1] >> 32) + (word[2] >> 32) + (word[3] >> 32);
		sum += lower + upper;
	}
	return sum[0] + sum[1];
}

uint16_t frame_checksum(uint32_t start, const uint8_t *bytes, uint32_t length)
{
	uint64_t sum = checksum_blocks(bytes, length / CHECKSUM_BLOCK_BYTES);
	bytes += length - length % CHECKSUM_BLOCK_BYTES;
	length %= CHECKSUM_BLOCK_BYTES;
	/* The sum may be taken in any byte order and width, as carries fold back in (RFC 1071
	 * section 2): so 32 bits at a time, swapped once at the end. */
	for (; length >= 4; bytes += 4, length -= 4)
		sum += get_u32(bytes);
	if (length >= 2) {
		sum += get_u16(bytes);
		bytes += 2;
		length -= 2;
	}
	if (length)
		sum += *bytes; /* the last odd byte is the high one of its pair */
	return checksum_fold((uint64_t)__builtin_bswap16(checksum_fold(sum)) + start);
}

/* ---- writing ---- */

static uint32_t put_ethernet(uint8_t *out, const struct frame_flow *flow, uint16_t ethertype)
{
	memcpy(out, flow->peer.bytes, MAC_BYTES);
	memcpy(out + MAC_BYTES, flow->local.bytes, MAC_BYTES);
	uint32_t at = 2 * MAC_BYTES;
	if (flow->vlan) {
		must(flow->vlan < VLAN_ID_MASK, "a VLAN id has 12 bits, and 4095 is reserved");
		put_be16(out + at, ETHERTYPE_VLAN);
		put_be16(out + at + 2, flow->vlan);
		at += FRAME_VLAN_BYTES;
	}
	put_be16(out + at, ethertype);
	return at + 2;
}

/* Without a length and a checksum; gives the sum so far. The identification stays 0: a datagram
 * that is never fragmented needs none (RFC 6864 section 4.1). */
static uint32_t put_ipv4(uint8_t *out, const struct frame_flow *flow, uint8_t protocol)
{
	memset(out, 0, FRAME_IPV4_BYTES);
	out[0] = 0x45;
	put_be16(out + 6, IP_FLAG_DF);
	out[8] = IP_TTL;
	out[9] = protocol;
	put_be32(out + 12, flow->local_ip);
	put_be32(out + 16, flow->peer_ip);
	return frame_checksum(0, out, FRAME_IPV4_BYTES);
}

static void ipv4_finish(uint8_t *ip, uint32_t sum, uint32_t length)
{
	must(length <= UINT16_MAX, "an IPv4 packet has a 16-bit length");
	put_be16(ip + 2, (uint16_t)length);
	put_be16(ip + 10, (uint16_t)~checksum_fold((uint64_t)sum + length));
}

/* RFC 768: the checksum covers a pseudo header of addresses, protocol and length too. */
static uint32_t pseudo_sum(uint32_t source_ip, uint32_t destination_ip)
{
	return (source_ip >> 16) + (source_ip & 0xffff) + (destination_ip >> 16) +
	       (destination_ip & 0xffff) + PROTOCOL_UDP;
}

void frame_template_init(struct frame_template *template, const struct frame_flow *flow)
{
	*template = (struct frame_template){0};
	uint32_t at = put_ethernet(template->bytes, flow, ETHERTYPE_IPV4);
	template->ip_sum = put_ipv4(template->bytes + at, flow, PROTOCOL_UDP);
	at += FRAME_IPV4_BYTES;
	put_be16(template->bytes + at, flow->source_port);
	put_be16(template->bytes + at + 2, flow->destination_port);
	template->length = at + FRAME_UDP_BYTES;
	template->udp_checksum = flow->udp_checksum;
	template->udp_sum = pseudo_sum(flow->local_ip, flow->peer_ip) + flow->source_port +
			    flow->destination_port;
	must(template->length <= FRAME_HEADER_BYTES_MAX, "headers fit their room");
}

uint32_t frame_prepend(const struct frame_template *template, uint8_t *datagram, uint32_t length)
{
	uint8_t *udp = datagram - FRAME_UDP_BYTES;
	memcpy(datagram - template->length, template->bytes, template->length);
	ipv4_finish(udp - FRAME_IPV4_BYTES, template->ip_sum,
		    FRAME_IPV4_BYTES + FRAME_UDP_BYTES + length);
	length += FRAME_UDP_BYTES;
	put_be16(udp + 4, (uint16_t)length);
	if (template->udp_checksum) {
		/* The length counts twice: in the header and in the pseudo header. A sum of 0 is
		 * sent as ones, as 0 says that there is none. */
		uint16_t sum = (uint16_t)~frame_checksum(template->udp_sum + 2 * length, datagram,
							 length - FRAME_UDP_BYTES);
		put_be16(udp + 6, sum ? sum : UINT16_MAX);
	}
	return template->length;
}

uint32_t frame_arp(enum frame_kind kind, const struct frame_flow *flow, uint8_t *out, uint32_t room)
{
	static const struct mac everyone = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
	must(room >= FRAME_BYTES_MIN, "the caller has room for the smallest frame");
	must(kind == FRAME_ARP_REQUEST || kind == FRAME_ARP_REPLY, "ARP asks or answers");

	struct frame_flow to = *flow;
	if (kind == FRAME_ARP_REQUEST)
		to.peer = everyone;
	memset(out, 0, FRAME_BYTES_MIN);
	uint8_t *arp = out + put_ethernet(out, &to, ETHERTYPE_ARP);
	put_be16(arp, 1); /* Ethernet */
	put_be16(arp + 2, ETHERTYPE_IPV4);
	arp[4] = MAC_BYTES;
	arp[5] = 4;
	put_be16(arp + 6, kind == FRAME_ARP_REQUEST ? ARP_REQUEST : ARP_REPLY);
	memcpy(arp + 8, flow->local.bytes, MAC_BYTES);
	put_be32(arp + 14, flow->local_ip);
	if (kind == FRAME_ARP_REPLY)
		memcpy(arp + 18, flow->peer.bytes, MAC_BYTES);
	put_be32(arp + 24, flow->peer_ip);
	return FRAME_BYTES_MIN;
}

uint32_t frame_pong(const struct frame *ping, const uint8_t *ping_bytes, uint8_t *out,
		    uint32_t room)
{
	const struct frame_flow flow = {
		.local = ping->destination,
		.peer = ping->source,
		.local_ip = ping->destination_ip,
		.peer_ip = ping->source_ip,
		.vlan = ping->vlan,
	};
	uint32_t link = FRAME_ETHERNET_BYTES + (flow.vlan ? FRAME_VLAN_BYTES : 0);
	if (room < link + FRAME_IPV4_BYTES + ping->payload_length)
		return 0;
	must(ping->payload_length >= ICMP_BYTES, "the parser has checked the message");
	uint8_t *ip = out + put_ethernet(out, &flow, ETHERTYPE_IPV4);
	uint8_t *icmp = ip + FRAME_IPV4_BYTES;
	ipv4_finish(ip, put_ipv4(ip, &flow, PROTOCOL_ICMP),
		    FRAME_IPV4_BYTES + ping->payload_length);
	memcpy(icmp, ping_bytes + ping->payload_offset, ping->payload_length);
	memset(icmp, 0, 4); /* echo reply, code 0, checksum to come */
	put_be16(icmp + 2, (uint16_t)~frame_checksum(0, icmp, ping->payload_length));
	return (uint32_t)(icmp - out) + ping->payload_length;
}

/* ---- reading ---- */

static int parse_arp(struct frame *frame, const uint8_t *arp, uint32_t length)
{
	if (length < FRAME_ARP_BYTES)
		return -EMSGSIZE;
	if (get_be16(arp) != 1 || get_be16(arp + 2) != ETHERTYPE_IPV4 || arp[4] != MAC_BYTES ||
	    arp[5] != 4)
		return FRAME_OTHER;
	memcpy(frame->arp_sender.bytes, arp + 8, MAC_BYTES);
	frame->source_ip = get_be32(arp + 14);
	frame->destination_ip = get_be32(arp + 24);
	switch (get_be16(arp + 6)) {
	case ARP_REQUEST:
		return FRAME_ARP_REQUEST;
	case ARP_REPLY:
		return FRAME_ARP_REPLY;
	default:
		return FRAME_OTHER;
	}
}

static int parse_icmp(struct frame *frame, const uint8_t *icmp, uint32_t length)
{
	if (length < ICMP_BYTES)
		return -EMSGSIZE;
	if (icmp[0] != ICMP_ECHO || icmp[1] != 0)
		return FRAME_OTHER;
	if (frame_checksum(0, icmp, length) != 0xffff)
		return -EBADMSG;
	frame->payload_length = length;
	return FRAME_PING;
}

static bool udp_checksum_right(const struct frame *frame, const uint8_t *udp, uint32_t length)
{
	uint32_t pseudo = pseudo_sum(frame->source_ip, frame->destination_ip) + length;
	return frame_checksum(pseudo, udp, length) == 0xffff;
}

static int parse_udp(struct frame *frame, const uint8_t *udp, uint32_t length)
{
	if (length < FRAME_UDP_BYTES)
		return -EMSGSIZE;
	uint32_t udp_length = get_be16(udp + 4);
	if (udp_length < FRAME_UDP_BYTES || udp_length > length)
		return -EMSGSIZE;
	if (get_be16(udp + 6) != 0 && !udp_checksum_right(frame, udp, udp_length))
		return -EBADMSG;
	frame->source_port = get_be16(udp);
	frame->destination_port = get_be16(udp + 2);
	frame->payload_offset += FRAME_UDP_BYTES;
	frame->payload_length = udp_length - FRAME_UDP_BYTES;
	return FRAME_DATAGRAM;
}

static int parse_ipv4(struct frame *frame, const uint8_t *ip, uint32_t length)
{
	if (length < FRAME_IPV4_BYTES)
		return -EMSGSIZE;
	uint32_t header = (uint32_t)(ip[0] & 0x0f) * 4;
	uint32_t total = get_be16(ip + 2);
	if (ip[0] >> 4 != 4 || header < FRAME_IPV4_BYTES || total < header || total > length)
		return -EMSGSIZE;
	if (frame_checksum(0, ip, header) != 0xffff)
		return -EBADMSG;
	/* We set DF and size datagrams to the path: a fragment is nobody's we know. */
	if (get_be16(ip + 6) & IP_FRAGMENT_MASK)
		return FRAME_OTHER;
	frame->source_ip = get_be32(ip + 12);
	frame->destination_ip = get_be32(ip + 16);
	frame->payload_offset += header;
	if (ip[9] == PROTOCOL_UDP)
		return parse_udp(frame, ip + header, total - header);
	if (ip[9] == PROTOCOL_ICMP)
		return parse_icmp(frame, ip + header, total - header);
	return FRAME_OTHER;
}

int frame_parse(struct frame *frame, const uint8_t *bytes, uint32_t length)
{
	*frame = (struct frame){0};
	if (length < FRAME_ETHERNET_BYTES)
		return -EMSGSIZE;
	memcpy(frame->destination.bytes, bytes, MAC_BYTES);
	memcpy(frame->source.bytes, bytes + MAC_BYTES, MAC_BYTES);
	uint32_t at = 2 * MAC_BYTES;
	if (get_be16(bytes + at) == ETHERTYPE_VLAN) {
		if (length < FRAME_LINK_BYTES_MAX)
			return -EMSGSIZE;
		frame->vlan = get_be16(bytes + at + 2) & VLAN_ID_MASK;
		at += FRAME_VLAN_BYTES;
	}
	uint16_t ethertype = get_be16(bytes + at);
	at += 2;
	frame->payload_offset = at;
	if (ethertype == ETHERTYPE_IPV4)
		return parse_ipv4(frame, bytes + at, length - at);
	if (ethertype == ETHERTYPE_ARP)
		return parse_arp(frame, bytes + at, length - at);
	return FRAME_OTHER;
}
