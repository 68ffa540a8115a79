/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a received frame: nothing may be read outside, and what is accepted must lie inside.
 */
#include "core/frame.h"

static void check(const uint8_t *bytes, uint32_t size)
{
	static uint8_t answer[1 << 16];
	struct frame frame;
	int kind = frame_parse(&frame, bytes, size);
	if (kind == FRAME_DATAGRAM || kind == FRAME_PING)
		must((uint64_t)frame.payload_offset + frame.payload_length <= size,
		     "a payload lies in its frame");
	if (kind == FRAME_PING) {
		uint32_t length = frame_pong(&frame, bytes, answer, sizeof answer);
		must(length <= size, "a ping is answered in kind, not louder");
	}
}

/* A fuzzer does not guess checksums: the second round has the IPv4 header's made right, so that
 * what lies behind it is reached. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static uint8_t mended[1 << 16];
	if (size > sizeof mended)
		return 0;
	check(bytes, (uint32_t)size);

	uint8_t *exact = mended + sizeof mended - size;
	memcpy(exact, bytes, size);
	uint8_t *ip = exact + (size > 12 && exact[12] == 0x81 ? 18 : 14);
	if (ip + 60 > mended + sizeof mended)
		return 0;
	ip[10] = ip[11] = 0;
	uint16_t sum = (uint16_t)~frame_checksum(0, ip, (uint32_t)(ip[0] & 15) * 4);
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
	check(exact, (uint32_t)size);
	return 0;
}
