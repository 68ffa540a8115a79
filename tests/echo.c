/* SPDX-License-Identifier: Apache-2.0 */
/* Pings an IPv4 address from the kernel's side once and compares the answer, for
 * tests/port_pair.sh: echo ADDRESS DATA_BYTES. Exit 0 when the same bytes came back within 2 s. */
#include "core/frame.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { ICMP_BYTES = 8, IP_BYTES = 20, ROOM = 65536 };

int main(int argc, char **argv)
{
	static uint8_t out[ROOM], in[ROOM];
	struct sockaddr_in to = {.sin_family = AF_INET};
	if (argc != 3 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	uint32_t length = ICMP_BYTES + (uint32_t)strtol(argv[2], NULL, 10) % 60000;
	for (uint32_t i = 0; i < length; i++)
		out[i] = (uint8_t)(i * 13);
	memcpy(out, (uint8_t[]){8, 0, 0, 0, 0xca, 0x5e, 0, 1}, ICMP_BYTES);
	uint16_t sum = (uint16_t)~frame_checksum(0, out, length);
	out[2] = (uint8_t)(sum >> 8);
	out[3] = (uint8_t)sum;

	int descriptor = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	struct timeval limit = {.tv_sec = 10};
	if (descriptor < 0 ||
	    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
	    sendto(descriptor, out, length, 0, (struct sockaddr *)&to, sizeof to) < 0) {
		perror("echo");
		return 1;
	}
	for (unsigned tries = 0; tries < 100; tries++) {
		ssize_t got = recv(descriptor, in, sizeof in, 0);
		if (got < 0)
			break;
		if (got == (ssize_t)(IP_BYTES + length) && in[IP_BYTES] == 0 &&
		    !memcmp(in + IP_BYTES + 4, out + 4, length - 4) &&
		    frame_checksum(0, in + IP_BYTES, length) == 0xffff)
			return 0;
	}
	fprintf(stderr, "echo: no answer\n");
	return 1;
}
