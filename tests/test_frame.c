/* SPDX-License-Identifier: Apache-2.0 */
/* Frames written and read back, frames that lie about their lengths, and the answers to ARP and
 * ping, compared with bytes written down by hand and with a second checksum in plain words. */
#include "core/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct frame_flow flow = {
	.local = {{0x02, 0, 0, 0, 0, 0x01}},
	.peer = {{0x02, 0, 0, 0, 0, 0x02}},
	.local_ip = 0xc0a80001, /* 192.168.0.1 */
	.peer_ip = 0xc0a800c7,	/* 192.168.0.199 */
	.source_port = 40001,
	.destination_port = 5700,
};

/* RFC 1071 as its text says it: pairs of bytes, high one first, carries added at the end. */
static uint16_t slow_sum(const uint8_t *bytes, uint32_t length)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < length; i++)
		sum += i % 2 ? bytes[i] : (uint64_t)bytes[i] << 8;
	while (sum > 0xffff)
		sum = sum % 0x10000 + sum / 0x10000;
	return (uint16_t)sum;
}

static void checksum_agrees_with_the_plain_one(void **state)
{
	/* The header that textbooks use; its checksum is b861. */
	const uint8_t known[] = {0x45, 0, 0,	0x73, 0, 0, 0x40, 0,	0x40, 0x11,
				 0,    0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,    0xc7};
	assert_int_equal(0xb861, (uint16_t)~frame_checksum(0, known, sizeof known));

	uint8_t bytes[600];
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 151 + (i >> 3));
	for (uint32_t length = 0; length < 590; length++)
		for (uint32_t shift = 0; shift < 4; shift++)
			assert_int_equal(slow_sum(bytes + shift, length),
					 frame_checksum(0, bytes + shift, length));
	memset(bytes, 0xff, sizeof bytes);
	assert_int_equal(0xffff, frame_checksum(0, bytes, 600));
	assert_int_equal(0xff00, slow_sum(bytes, 1));
	assert_int_equal(7, frame_checksum(7, bytes, 0));
}

static uint32_t datagram_frame(uint8_t *room, const struct frame_flow *of, uint32_t length)
{
	struct frame_template template;
	uint8_t *datagram = room + 128;
	frame_template_init(&template, of);
	for (uint32_t i = 0; i < length; i++)
		datagram[i] = (uint8_t)(i * 7 + 1);
	uint32_t header = frame_prepend(&template, datagram, length);
	memmove(room, datagram - header, header + length);
	return header + length;
}

static void datagrams_come_back_as_sent(void **state)
{
	static const struct {
		uint32_t length;
		uint16_t vlan;
		uint32_t frame_length;
	} row[] = {
		/* 0 */ {0, 0, 42},
		/* 1 */ {1, 0, 43},
		/* 2 */ {1, 7, 47},
		/* 3 */ {1472, 0, 1514},
		/* 4 */ {8972, 4000, 9018},
		/* 5 */ {65507, 1, 65553},
	};
	uint8_t *room = malloc(70000);
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		print_message("row %u\n", i);
		struct frame_flow of = flow;
		of.vlan = row[i].vlan;
		uint32_t length = datagram_frame(room, &of, row[i].length);
		assert_int_equal(row[i].frame_length, length);
		struct frame frame;
		assert_int_equal(FRAME_DATAGRAM, frame_parse(&frame, room, length));
		assert_true(mac_equal(&frame.source, &of.local));
		assert_true(mac_equal(&frame.destination, &of.peer));
		assert_int_equal(of.vlan, frame.vlan);
		assert_int_equal(of.local_ip, frame.source_ip);
		assert_int_equal(of.peer_ip, frame.destination_ip);
		assert_int_equal(of.source_port, frame.source_port);
		assert_int_equal(of.destination_port, frame.destination_port);
		assert_int_equal(row[i].length, frame.payload_length);
		assert_int_equal(length - row[i].length, frame.payload_offset);
		uint32_t link = of.vlan ? 18 : 14;
		assert_int_equal(0xffff, slow_sum(room + link, 20));
		for (uint32_t b = 0; b < row[i].length; b++)
			assert_int_equal((uint8_t)(b * 7 + 1), room[frame.payload_offset + b]);
	}
	free(room);
}

static void headers_match_bytes_written_by_hand(void **state)
{
	static const uint8_t expected[] = {
		0x02, 0,    0,	  0,	0, 0x02, 0x02, 0,    0,	   0,	 0,    0x01,
		0x08, 0x00, 0x45, 0,	0, 0x1f, 0,    0,    0x40, 0,	 0x40, 0x11,
		0xb8, 0xb5, 0xc0, 0xa8, 0, 1,	 0xc0, 0xa8, 0,	   0xc7, 0x9c, 0x41,
		0x16, 0x44, 0,	  0x0b, 0, 0,	 1,    8,    15,
	};
	uint8_t room[512];
	uint32_t length = datagram_frame(room, &flow, 3);
	assert_int_equal(sizeof expected, length);
	assert_memory_equal(expected, room, length);
}

/* One change to a good frame of 100 bytes of datagram (no VLAN), and what the parser says. */
static void lies_are_told_from_truth(void **state)
{
	enum { NOTHING = 0xffff };
	static const struct {
		const char *what;
		uint16_t at;
		uint8_t value;
		uint32_t length; /* of the frame as received; 142 is right */
		bool mend;	 /* make the IPv4 checksum right again */
		int expected;
	} row[] = {
		/* 0 */ {"untouched", NOTHING, 0, 142, false, FRAME_DATAGRAM},
		/* 1 */ {"padding behind", NOTHING, 0, 150, false, FRAME_DATAGRAM},
		/* 2 */ {"one byte missing", NOTHING, 0, 141, false, -EMSGSIZE},
		/* 3 */ {"nothing at all", NOTHING, 0, 0, false, -EMSGSIZE},
		/* 4 */ {"cut in Ethernet", NOTHING, 0, 13, false, -EMSGSIZE},
		/* 5 */ {"cut behind Ethernet", NOTHING, 0, 14, false, -EMSGSIZE},
		/* 6 */ {"cut in IPv4", NOTHING, 0, 33, false, -EMSGSIZE},
		/* 7 */ {"other ethertype", 13, 0x99, 142, false, FRAME_OTHER},
		/* 8 */ {"version 6", 14, 0x65, 142, true, -EMSGSIZE},
		/* 9 */ {"header of 16 bytes", 14, 0x44, 142, true, -EMSGSIZE},
		/* 10 */ {"header beyond the packet", 17, 19, 142, true, -EMSGSIZE},
		/* 11 */ {"total beyond the frame", 16, 0x10, 142, true, -EMSGSIZE},
		/* 12 */ {"total cuts the UDP header", 17, 27, 142, true, -EMSGSIZE},
		/* 13 */ {"more fragments", 20, 0x20, 142, true, FRAME_OTHER},
		/* 14 */ {"later fragment", 21, 1, 142, true, FRAME_OTHER},
		/* 15 */ {"bad IPv4 checksum", 22, 3, 142, false, -EBADMSG},
		/* 16 */ {"other protocol", 23, 6, 142, true, FRAME_OTHER},
		/* 17 */ {"UDP shorter than its header", 39, 7, 142, false, -EMSGSIZE},
		/* 18 */ {"UDP longer than the packet", 39, 109, 142, false, -EMSGSIZE},
		/* 19 */ {"UDP shorter than the packet", 39, 58, 142, false, FRAME_DATAGRAM},
		/* 20 */ {"wrong UDP checksum", 41, 1, 142, false, -EBADMSG},
		/* 21 */ {"cut ICMP", 23, 1, 142, true, FRAME_OTHER},
		/* 22 */ {"VLAN cut short", 12, 0x81, 17, false, -EMSGSIZE},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(row); i++) {
		print_message("row %u: %s\n", i, row[i].what);
		uint8_t room[512] = {0};
		struct frame frame;
		datagram_frame(room, &flow, 100);
		if (row[i].at != NOTHING)
			room[row[i].at] = row[i].value;
		if (row[i].mend) {
			room[24] = room[25] = 0;
			uint16_t sum = (uint16_t)~slow_sum(room + 14, (room[14] & 15) * 4);
			room[24] = (uint8_t)(sum >> 8);
			room[25] = (uint8_t)sum;
		}
		/* A copy of exactly this size, so that a read behind it is seen by ASan. */
		uint8_t *exact = malloc(row[i].length + 1);
		memcpy(exact + 1, room, row[i].length);
		assert_int_equal(row[i].expected, frame_parse(&frame, exact + 1, row[i].length));
		free(exact);
	}
}

static void udp_checksums_are_checked_when_there(void **state)
{
	uint8_t room[512];
	for (uint32_t payload = 0; payload < 20; payload++) {
		uint32_t length = datagram_frame(room, &flow, payload);
		uint8_t pseudo[64] = {0};
		memcpy(pseudo, room + 26, 8);
		pseudo[9] = 17;
		pseudo[11] = (uint8_t)(8 + payload);
		memcpy(pseudo + 12, room + 34, 8 + payload);
		uint16_t sum = (uint16_t)~slow_sum(pseudo, 20 + payload);
		room[40] = (uint8_t)(sum >> 8);
		room[41] = (uint8_t)sum;
		struct frame frame;
		assert_int_equal(FRAME_DATAGRAM, frame_parse(&frame, room, length));
		room[41] ^= 0x10;
		assert_int_equal(-EBADMSG, frame_parse(&frame, room, length));
	}
}

/* All lengths around a block of the sum, and one whose sum is 0 and goes out as ones. */
static void udp_checksums_are_made_where_wanted(void **state)
{
	uint8_t *room = malloc(70000);
	struct frame_flow of = flow;
	struct frame frame;
	of.udp_checksum = true;
	for (uint32_t payload = 0; payload <= 9000; payload += payload < 300 ? 1 : 87) {
		uint32_t length = datagram_frame(room, &of, payload);
		assert_true(room[40] || room[41]);
		assert_int_equal(FRAME_DATAGRAM, frame_parse(&frame, room, length));
		uint8_t *pseudo = room + 22; /* over what is left of the IPv4 header: 12 bytes */
		uint8_t saved[12];
		memcpy(saved, pseudo, 12);
		memmove(pseudo, room + 26, 8);
		pseudo[8] = 0, pseudo[9] = 17;
		pseudo[10] = (uint8_t)((8 + payload) >> 8), pseudo[11] = (uint8_t)(8 + payload);
		assert_int_equal(0xffff, slow_sum(pseudo, 20 + payload));
		memcpy(pseudo, saved, 12);
		room[42 + payload / 2] ^= payload ? 0x10 : 0;
		assert_int_equal(payload ? -EBADMSG : FRAME_DATAGRAM,
				 frame_parse(&frame, room, length));
	}
	uint8_t *datagram = room + 128;
	struct frame_template template;
	frame_template_init(&template, &of);
	memset(datagram, 0, 2);
	frame_prepend(&template, datagram, 2);
	memcpy(datagram, datagram - 2, 2); /* what belongs there makes the rest sum up to 0 */
	frame_prepend(&template, datagram, 2);
	assert_int_equal(0xff, datagram[-1]);
	assert_int_equal(0xff, datagram[-2]);
	free(room);
}

static void arp_asks_and_answers(void **state)
{
	for (unsigned tagged = 0; tagged < 2; tagged++) {
		struct frame_flow of = flow;
		of.vlan = tagged ? 42 : 0;
		uint8_t room[FRAME_BYTES_MIN];
		struct frame frame;
		assert_int_equal(60, frame_arp(FRAME_ARP_REQUEST, &of, room, sizeof room));
		assert_int_equal(FRAME_ARP_REQUEST, frame_parse(&frame, room, 60));
		assert_int_equal(0xff, frame.destination.bytes[5]);
		assert_true(mac_equal(&frame.arp_sender, &of.local));
		assert_int_equal(of.local_ip, frame.source_ip);
		assert_int_equal(of.peer_ip, frame.destination_ip);
		assert_int_equal(of.vlan, frame.vlan);

		assert_int_equal(60, frame_arp(FRAME_ARP_REPLY, &of, room, sizeof room));
		assert_int_equal(FRAME_ARP_REPLY, frame_parse(&frame, room, 60));
		assert_true(mac_equal(&frame.destination, &of.peer));
		uint32_t arp = tagged ? 18 : 14;
		assert_memory_equal(of.peer.bytes, room + arp + 18, MAC_BYTES);
		assert_int_equal(FRAME_ARP_REPLY, frame_parse(&frame, room, arp + 28));
		assert_int_equal(-EMSGSIZE, frame_parse(&frame, room, arp + 27));
		room[arp + 7] = 9; /* an operation that nobody knows */
		assert_int_equal(FRAME_OTHER, frame_parse(&frame, room, 60));
		room[arp + 4] = 8; /* hardware addresses of 8 bytes */
		assert_int_equal(FRAME_OTHER, frame_parse(&frame, room, 60));
	}
}

/* A ping as a client's kernel would send it: built here by hand on top of a datagram's headers. */
static uint32_t ping_frame(uint8_t *room, uint32_t data)
{
	uint32_t length = datagram_frame(room, &flow, data);
	uint8_t *icmp = room + 34;
	room[23] = 1;
	room[24] = room[25] = 0;
	uint16_t sum = (uint16_t)~slow_sum(room + 14, 20);
	room[24] = (uint8_t)(sum >> 8);
	room[25] = (uint8_t)sum;
	memcpy(icmp, (uint8_t[]){8, 0, 0, 0, 0x12, 0x34, 0, 1}, 8);
	sum = (uint16_t)~slow_sum(icmp, 8 + data);
	icmp[2] = (uint8_t)(sum >> 8);
	icmp[3] = (uint8_t)sum;
	return length;
}

static void pings_are_answered_in_kind(void **state)
{
	uint8_t room[2048], answer[2048];
	for (uint32_t data = 0; data < 1473; data += 57) {
		struct frame ping, frame;
		uint32_t length = ping_frame(room, data);
		assert_int_equal(FRAME_PING, frame_parse(&ping, room, length));
		assert_int_equal(8 + data, ping.payload_length);
		assert_int_equal(length, frame_pong(&ping, room, answer, length));
		assert_int_equal(FRAME_OTHER, frame_parse(&frame, answer, length));
		assert_int_equal(flow.peer_ip, frame.source_ip);
		assert_int_equal(flow.local_ip, frame.destination_ip);
		assert_true(mac_equal(&frame.destination, &flow.local));
		assert_int_equal(0, answer[34]);
		assert_int_equal(0xffff, slow_sum(answer + 34, 8 + data));
		assert_memory_equal(room + 38, answer + 38, 4 + data);
		assert_int_equal(0, frame_pong(&ping, room, answer, length - 1));
		room[36] ^= 1;
		assert_int_equal(-EBADMSG, frame_parse(&frame, room, length));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checksum_agrees_with_the_plain_one),
		cmocka_unit_test(datagrams_come_back_as_sent),
		cmocka_unit_test(headers_match_bytes_written_by_hand),
		cmocka_unit_test(lies_are_told_from_truth),
		cmocka_unit_test(udp_checksums_are_checked_when_there),
		cmocka_unit_test(udp_checksums_are_made_where_wanted),
		cmocka_unit_test(arp_asks_and_answers),
		cmocka_unit_test(pings_are_answered_in_kind),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
