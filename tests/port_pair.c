/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a link of DPDK ports, for tests/port_pair.sh: sends datagrams that can be checked,
 * checks those that come, says "ready" once its ports are started, and at the end what it saw, as
 * key=value. Exit 0: every port
 * received as many good ones as wanted, and no bad one. */
#include "drive/eal.h"
#include "drive/port.h"
#include "drive/port_memory.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	PORTS_MAX = 4,
	CELLS = 256,
	CELL_BYTES = 9216 + CELL_HEADROOM_BYTES,
	HEADER_BYTES = 16, /* of a datagram: number, bye, seed */
	BURST = 32,
};
#define BYE_FOR_NS (300 * NS_PER_MS)

static volatile sig_atomic_t stop;

struct options {
	struct eal_config eal;
	unsigned ports;
	int end;	    /* 1 or 2: the last part of our addresses */
	bool loop;	    /* we are our own peer */
	bool silent;	    /* sends nothing of its own: for ping and ARP */
	uint64_t want;	    /* datagrams per port; 0: until told to stop */
	ns_t timeout, pace; /* pace: between bursts */
	uint32_t mtu, length;
	uint16_t vlan;
};

struct end {
	struct port *port;
	uint64_t sent, good, bad, byes;
	ns_t quiet_until; /* the peer said bye */
};

static struct options options = {.end = 1, .mtu = 9000, .length = 8900};
static struct end ends[PORTS_MAX];
static struct cell cells[CELLS];
static struct cell_list idle;

static ns_t clock_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (ns_t)t.tv_sec * NS_PER_S + (ns_t)t.tv_nsec;
}

static void on_signal(int number)
{
	stop = 1;
}

static uint8_t pattern(uint64_t number, uint32_t at)
{
	return (uint8_t)(number * 131 + at * 7 + (at >> 8));
}

static void datagram_write(struct cell *cell, uint64_t number, bool bye)
{
	put_u64(cell->datagram, number);
	put_u64(cell->datagram + 8, bye);
	for (uint32_t i = HEADER_BYTES; i < options.length; i++)
		cell->datagram[i] = pattern(number, i);
	cell->length = options.length;
}

static bool datagram_right(const struct packet *packet)
{
	if (packet->length != options.length)
		return false;
	uint64_t number = get_u64(packet->datagram);
	for (uint32_t i = HEADER_BYTES; i < packet->length; i++)
		if (packet->datagram[i] != pattern(number, i))
			return false;
	return true;
}

static void receive(struct end *end, ns_t now)
{
	struct packet packet[BURST];
	unsigned count = port_receive(end->port, packet, BURST, now);
	for (unsigned i = 0; i < count; i++) {
		if (!datagram_right(&packet[i])) {
			end->bad++;
			continue;
		}
		end->good++;
		if (get_u64(packet[i].datagram + 8)) {
			end->byes++;
			end->quiet_until = now + BYE_FOR_NS;
		}
		memset(packet[i].datagram, 0xee, packet[i].length); /* ours to write */
	}
}

static void send_burst(struct end *end, ns_t now, bool bye)
{
	struct cell *burst[BURST];
	unsigned count = 0;
	while (count < BURST && idle.head) {
		burst[count] = cell_list_pop(&idle);
		datagram_write(burst[count++], end->sent++, bye);
	}
	port_send(end->port, burst, count, now);
}

static void collect(struct end *end)
{
	struct cell *back[BURST];
	unsigned count;
	while ((count = port_sent(end->port, back, BURST)))
		for (unsigned i = 0; i < count; i++) {
			must(!back[i]->in_port, "a sent cell is free");
			cell_list_push(&idle, back[i]);
		}
}

static bool satisfied(void)
{
	for (unsigned i = 0; i < options.ports; i++)
		if (ends[i].good < options.want)
			return false;
	return options.want > 0;
}

static void turn(bool sends, bool bye)
{
	static ns_t send_at;
	ns_t now = clock_now();
	bool due = sends && now >= send_at;
	if (due)
		send_at = now + options.pace;
	for (unsigned i = 0; i < options.ports; i++) {
		receive(&ends[i], now);
		port_turn(ends[i].port, now);
		if (due && now >= ends[i].quiet_until)
			send_burst(&ends[i], now, bye);
		collect(&ends[i]);
	}
	nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

/* Says goodbye for a while, so that the peer stops before we go: a memif peer that sends into a
 * link that vanishes may crash in its driver. */
static void leave(void)
{
	ns_t until = clock_now() + BYE_FOR_NS / 3;
	while (clock_now() < until)
		turn(!options.silent, true);
	until = clock_now() + BYE_FOR_NS / 3;
	while (clock_now() < until)
		turn(false, true);
}

static bool report(void)
{
	bool good = options.want == 0 || satisfied();
	for (unsigned i = 0; i < options.ports; i++) {
		struct port_stats s;
		port_stats(ends[i].port, &s);
		printf("port=%u driver=%s sent=%llu good=%llu bad=%llu dropped=%llu "
		       "linearised=%llu "
		       "no_neighbour=%llu not_ours=%llu bad_length=%llu bad_checksum=%llu arp=%llu "
		       "ping=%llu link=%d\n",
		       i, s.driver, (unsigned long long)s.tx_packets,
		       (unsigned long long)ends[i].good, (unsigned long long)ends[i].bad,
		       (unsigned long long)s.tx_dropped, (unsigned long long)s.linearised,
		       (unsigned long long)s.no_neighbour, (unsigned long long)s.rx_not_ours,
		       (unsigned long long)s.rx_bad_length, (unsigned long long)s.rx_bad_checksum,
		       (unsigned long long)s.arp_answered, (unsigned long long)s.ping_answered,
		       s.link_up);
		good = good && ends[i].bad == 0;
	}
	return good;
}

static void ports_open(void *memory, uint64_t memory_bytes)
{
	for (unsigned i = 0; i < options.ports; i++) {
		const char *why = NULL;
		uint32_t network = 0x0a4d0000u + (i << 8); /* 10.77.i.0 */
		struct port_config config = {
			.path = (uint8_t)i,
			.local_ip = network + (uint32_t)options.end,
			.peer_ip =
				network + (uint32_t)(options.loop ? options.end : 3 - options.end),
			.prefix_length = 24,
			.udp_port = 5700,
			.udp_source_port = (uint16_t)(40000 + i),
			.mtu = options.mtu,
			.vlan = options.vlan,
			.udp_checksum = true,
			.packet_memory = memory,
			.packet_memory_bytes = memory_bytes,
		};
		snprintf(config.device, sizeof config.device, "%.*s",
			 (int)strcspn(options.eal.vdev[i], ","), options.eal.vdev[i]);
		ends[i].port = port_open(&config, &why);
		if (!ends[i].port) {
			fprintf(stderr, "port %u: %s: %s\n", i, why, strerror(errno));
			exit(1);
		}
	}
}

static long number(const char *text)
{
	return strtol(text, NULL, 10);
}

static void parse(int argc, char **argv)
{
	int option;
	options.eal = (struct eal_config){
		.hugepages = EAL_HUGEPAGES_OFF,
		.memory_mib = 128,
		.cpu = EAL_CPU_ANY,
		.file_prefix = "casemate-test",
	};
	while ((option = getopt(argc, argv, "v:e:w:t:p:f:m:l:V:c:h:os")) != -1) {
		switch (option) {
		case 'v':
			must(options.ports < PORTS_MAX, "few ports are tested");
			options.eal.vdev[options.ports++] = optarg;
			break;
		case 'e':
			options.end = (int)number(optarg);
			break;
		case 'w':
			options.want = strtoull(optarg, NULL, 10);
			break;
		case 't':
			options.timeout = strtoull(optarg, NULL, 10) * NS_PER_S;
			break;
		case 'p':
			options.pace = strtoull(optarg, NULL, 10) * NS_PER_US;
			break;
		case 'f':
			options.eal.file_prefix = optarg;
			break;
		case 'm':
			options.mtu = (uint32_t)number(optarg);
			break;
		case 'l':
			options.length = (uint32_t)number(optarg);
			break;
		case 'V':
			options.vlan = (uint16_t)number(optarg);
			break;
		case 'c':
			options.eal.cpu = (int)number(optarg);
			break;
		case 'h':
			options.eal.hugepages = (uint8_t)number(optarg);
			break;
		case 'o':
			options.loop = true;
			break;
		case 's':
			options.silent = true;
			break;
		default:
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	char why[256];
	const uint64_t memory_bytes = (uint64_t)CELLS * CELL_BYTES;
	parse(argc, argv);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	if (eal_start(&options.eal, why, sizeof why) < 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	uint8_t *memory = packet_memory_new(memory_bytes);
	must(memory, "the test's memory is there");
	for (unsigned i = 0; i < CELLS; i++) {
		cells[i].datagram = memory + (uint64_t)i * CELL_BYTES + CELL_HEADROOM_BYTES;
		cell_list_push(&idle, &cells[i]);
	}
	ports_open(memory, memory_bytes);
	if (eal_ports_started(why, sizeof why) < 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	puts("ready");
	fflush(stdout);
	ns_t until = clock_now() + options.timeout;
	while (!stop && !satisfied() && clock_now() < until)
		turn(!options.silent, false);
	leave();
	bool good = report();
	eal_ports_stopping();
	for (unsigned i = 0; i < options.ports; i++) {
		collect(&ends[i]);
		good &= !port_close(ends[i].port);
	}
	packet_memory_free(memory, memory_bytes);
	return good ? 0 : 1;
}
