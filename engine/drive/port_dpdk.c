/* SPDX-License-Identifier: Apache-2.0 */
/* A port on any DPDK ethdev: one queue pair, datagrams in bursts, ARP and ping answered below.
 *
 * Life of a cell. port_send puts it at the end of the backlog; as the device has room, cells of the
 * backlog become mbufs on the stage, and the stage goes to the device. An mbuf points into the cell
 * (an external buffer), and when the driver frees it, at once or much later, the callback moves the
 * cell to the list of sent ones. Where the driver cannot do that, the frame is copied and the cell
 * is sent at once. A cell is on one list at a time, linked by its own next; what the callback must
 * know lies in the cell's headroom, where nobody else writes while the port has it.
 *
 * Received datagrams point into mbufs of the last burst, which live until the next one. */
#include "port.h"

#include "core/frame.h"
#include "eal.h"
#include "neighbour.h"
#include "port_capability.h"
#include "port_memory.h"
#include "port_pool.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_pause.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	BURST = 32,
	DESCRIPTORS = 1024,
	BACKLOG_MAX = 1024, /* cells that wait for room: then the network is what drops */
	SEND_TRIES = 4,	    /* of a full device within a turn */
};
#define LINK_LOOK_EVERY_NS (10 * NS_PER_MS)
#define RECONNECT_EVERY_NS (100 * NS_PER_MS)
#define LINK_WITHIN_NS	   (5ull * NS_PER_S) /* of a start that found its server */
#define TIDY_EVERY_NS	   NS_PER_MS
#define RETRY_AFTER_NS	   (50 * NS_PER_US) /* a device that was full */

/* At the start of a cell's headroom while the port has the cell. */
struct hold {
	struct rte_mbuf_ext_shared_info shared;
	struct port *port;
	struct cell *cell;
};
_Static_assert(sizeof(struct hold) + _Alignof(struct hold) + FRAME_HEADER_BYTES_MAX <=
		       CELL_HEADROOM_BYTES,
	       "a hold and the link headers share a cell's headroom");

struct port {
	struct port_config config;
	struct port_capability capability;
	uint16_t ethdev;
	bool started;
	uint32_t datagram_bytes_max;
	struct port_pools pool;
	struct frame_flow flow;
	struct frame_template headers;
	struct neighbour next_hop;
	struct rte_mbuf *received[BURST];
	unsigned received_count;
	struct rte_mbuf *stage[BURST];
	unsigned stage_count;
	struct cell_list backlog, sent;
	unsigned backlog_count;
	unsigned cells_held; /* by the device */
	ns_t link_look_at, reconnect_at, tidy_at;
	struct port_stats stats;
};

/* ---- opening ---- */

static int device_configure(struct port *port, const char **why)
{
	struct rte_eth_conf conf = {0};
	struct rte_eth_dev_info info;
	uint16_t rx_descriptors = DESCRIPTORS, tx_descriptors = DESCRIPTORS;
	int result = rte_eth_dev_info_get(port->ethdev, &info);
	if (result < 0)
		return result;
	*why = "the device cannot be configured for one queue pair and this mtu";
	if (port->capability.sets_mtu)
		conf.rxmode.mtu = port->config.mtu;
	result = rte_eth_dev_configure(port->ethdev, 1, 1, &conf);
	if (result < 0)
		return result;
	result = rte_eth_dev_adjust_nb_rx_tx_desc(port->ethdev, &rx_descriptors, &tx_descriptors);
	if (result < 0)
		return result;
	*why = "no memory for packet buffers: give DPDK more";
	result = port_pools_new(&port->pool, port->ethdev, &port->capability, rx_descriptors,
				tx_descriptors);
	if (result < 0)
		return result;
	*why = "the device refuses its queues";
	struct rte_eth_txconf tx = info.default_txconf;
	tx.offloads = 0; /* fast free above all: it knows no external buffers */
	int socket = rte_eth_dev_socket_id(port->ethdev);
	result = rte_eth_rx_queue_setup(port->ethdev, 0, rx_descriptors, (unsigned)socket, NULL,
					port->pool.rx);
	if (result < 0)
		return result;
	return rte_eth_tx_queue_setup(port->ethdev, 0, tx_descriptors, (unsigned)socket, &tx);
}

static int flow_init(struct port *port)
{
	const struct port_config *config = &port->config;
	struct rte_ether_addr address;
	int result = rte_eth_macaddr_get(port->ethdev, &address);
	if (result < 0)
		return result;
	port->flow = (struct frame_flow){
		.local_ip = config->local_ip,
		.peer_ip = config->peer_ip,
		.source_port = config->udp_source_port,
		.destination_port = config->udp_port,
		.vlan = config->vlan,
		.udp_checksum = config->udp_checksum,
	};
	memcpy(port->flow.local.bytes, address.addr_bytes, MAC_BYTES);
	neighbour_init(&port->next_hop, config->gateway_ip ? config->gateway_ip : config->peer_ip);
	return 0;
}

static void port_destroy(struct port *port)
{
	port_pools_free(&port->pool);
	free(port);
}

static int port_prepare(struct port *port, const char **why)
{
	*why = "there is no such device";
	int result = rte_eth_dev_get_port_by_name(port->config.device, &port->ethdev);
	if (result < 0)
		return result;
	result = port_capability(port->ethdev, port->config.mtu, &port->capability, why);
	if (result < 0)
		return result;
	result = device_configure(port, why);
	if (result < 0)
		return result;
	*why = "the device has no address";
	result = flow_init(port);
	if (result < 0)
		return result;
	/* A memif client waits for its server: port_turn starts it, and gives it time. */
	if (port->capability.reconnects_by_restart)
		return 0;
	*why = "the device does not start";
	result = rte_eth_dev_start(port->ethdev);
	port->started = result == 0;
	return result;
}

struct port *port_open(const struct port_config *config, const char **why)
{
	must(config->mtu > FRAME_IPV4_BYTES + FRAME_UDP_BYTES, "an MTU leaves room for data");
	*why = "no memory";
	struct port *port = calloc(1, sizeof *port);
	if (!port)
		return NULL;
	port->config = *config;
	port->datagram_bytes_max = config->mtu - FRAME_IPV4_BYTES - FRAME_UDP_BYTES;
	int result = port_prepare(port, why);
	if (result < 0) {
		port_destroy(port);
		errno = -result;
		return NULL;
	}
	snprintf(port->stats.driver, sizeof port->stats.driver, "%s", port->capability.driver);
	return port;
}

static void device_close(void *context)
{
	const struct port *port = context;
	if (port->started)
		rte_eth_dev_stop(port->ethdev);
	rte_eth_dev_close(port->ethdev);
}

int port_close(struct port *port)
{
	rte_pktmbuf_free_bulk(port->received, port->received_count);
	rte_pktmbuf_free_bulk(port->stage, port->stage_count);
	int result = eal_run_apart(device_close, port);
	if (result < 0)
		return result;
	must(port->cells_held == 0, "a closed device holds no cell");
	port_destroy(port);
	return 0;
}

/* ---- sending ---- */

/* The device is done with it; the port has it still, until port_sent hands it over. */
static void cell_is_sent(struct port *port, struct cell *cell)
{
	cell_list_push(&port->sent, cell);
}

static void cell_is_dropped(struct port *port, struct cell *cell)
{
	port->stats.tx_dropped++;
	cell_is_sent(port, cell);
}

/* The driver lets go of an mbuf that points into a cell. */
static void hold_ends(void *address, void *opaque)
{
	struct hold *hold = opaque;
	must(hold->port->cells_held > 0, "a cell comes back once");
	hold->port->cells_held--;
	cell_is_sent(hold->port, hold->cell);
}

static struct hold *hold_new(struct port *port, struct cell *cell)
{
	uintptr_t start = (uintptr_t)(cell->datagram - CELL_HEADROOM_BYTES);
	struct hold *hold = (struct hold *)align_up(start, _Alignof(struct hold));
	*hold = (struct hold){.port = port, .cell = cell};
	hold->shared.free_cb = hold_ends;
	hold->shared.fcb_opaque = hold;
	rte_mbuf_ext_refcnt_set(&hold->shared, 1);
	return hold;
}

/* Where the device finds the frame; UINT64_MAX when it must be copied. */
static uint64_t frame_address(const struct port *port, const uint8_t *frame, uint32_t length)
{
	if (!port->capability.external_buffer)
		return UINT64_MAX;
	if (!port->capability.reads_by_address)
		return (uintptr_t)frame;
	return packet_memory_device_address(frame, length);
}

static void mbuf_copy(struct port *port, struct rte_mbuf *mbuf, struct cell *cell, uint32_t header)
{
	uint32_t length = header + cell->length;
	char *room = rte_pktmbuf_append(mbuf, (uint16_t)length);
	must(room, "buffers are as large as frames");
	memcpy(room, cell->datagram - header, length);
	port->stats.linearised++;
	cell_is_sent(port, cell);
}

static void mbuf_attach(struct port *port, struct rte_mbuf *mbuf, struct cell *cell,
			uint32_t header, uint64_t address)
{
	uint32_t length = header + cell->length;
	struct hold *hold = hold_new(port, cell);
	rte_pktmbuf_attach_extbuf(mbuf, cell->datagram - header, address, (uint16_t)length,
				  &hold->shared);
	mbuf->data_len = (uint16_t)length;
	mbuf->pkt_len = length;
	port->cells_held++;
}

static void stage_fill(struct port *port)
{
	while (port->stage_count < BURST && port->backlog.head) {
		struct cell *cell = port->backlog.head;
		uint32_t header = port->headers.length;
		uint64_t address =
			frame_address(port, cell->datagram - header, header + cell->length);
		bool copies = address == UINT64_MAX;
		struct rte_mbuf *mbuf = rte_pktmbuf_alloc(copies ? port->pool.rx : port->pool.tx);
		if (!mbuf)
			return; /* the device has them all: next turn */
		frame_prepend(&port->headers, cell->datagram, cell->length);
		/* The cell leaves the backlog before it may enter the list of sent ones. */
		cell_list_pop(&port->backlog);
		port->backlog_count--;
		if (copies)
			mbuf_copy(port, mbuf, cell, header);
		else
			mbuf_attach(port, mbuf, cell, header, address);
		port->stats.tx_bytes += mbuf->pkt_len;
		port->stage[port->stage_count++] = mbuf;
	}
}

static void backlog_flush(struct port *port)
{
	unsigned in_vain = 0;
	if (!port->started)
		return;
	while (in_vain < SEND_TRIES) {
		stage_fill(port);
		if (port->stage_count == 0)
			return;
		unsigned sent =
			rte_eth_tx_burst(port->ethdev, 0, port->stage, (uint16_t)port->stage_count);
		port->stats.tx_packets += sent;
		port->stage_count -= sent;
		memmove(port->stage, port->stage + sent, port->stage_count * sizeof *port->stage);
		if (sent == 0) {
			in_vain++;
			rte_pause();
		}
	}
}

/* The peer has gone: what waits for it is lost, as on any network. */
static void backlog_drop(struct port *port)
{
	struct cell *cell;
	port->stats.tx_dropped += port->stage_count;
	rte_pktmbuf_free_bulk(port->stage, port->stage_count);
	port->stage_count = 0;
	while ((cell = cell_list_pop(&port->backlog)))
		cell_is_dropped(port, cell);
	port->backlog_count = 0;
}

void port_send(struct port *port, struct cell *const *cell, unsigned count, ns_t now)
{
	for (unsigned i = 0; i < count; i++) {
		must(cell[i]->length <= port->datagram_bytes_max, "a datagram fits its path");
		cell[i]->in_port = 1;
		if (!port->next_hop.known) {
			port->stats.no_neighbour++;
			cell_is_dropped(port, cell[i]);
		} else if (!port->stats.link_up || port->backlog_count == BACKLOG_MAX) {
			cell_is_dropped(port, cell[i]);
		} else {
			cell_list_push(&port->backlog, cell[i]);
			port->backlog_count++;
		}
		if (port->backlog_count >= BURST)
			backlog_flush(port);
	}
	backlog_flush(port);
}

unsigned port_sent(struct port *port, struct cell **cell, unsigned max)
{
	unsigned count = 0;
	while (count < max && port->sent.head) {
		cell[count] = cell_list_pop(&port->sent);
		cell[count++]->in_port = 0;
	}
	return count;
}

/* ---- answering ---- */

/* Sends a small frame of our own, at once or not at all. */
static bool frame_out(struct port *port, struct rte_mbuf *mbuf, uint32_t length)
{
	mbuf->data_len = (uint16_t)length;
	mbuf->pkt_len = length;
	if (length && rte_eth_tx_burst(port->ethdev, 0, &mbuf, 1) == 1)
		return true;
	rte_pktmbuf_free(mbuf);
	return false;
}

static bool arp_out(struct port *port, enum frame_kind kind, const struct frame_flow *flow)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(port->pool.rx);
	if (!mbuf)
		return false;
	uint8_t *out = rte_pktmbuf_mtod(mbuf, uint8_t *);
	return frame_out(port, mbuf, frame_arp(kind, flow, out, rte_pktmbuf_tailroom(mbuf)));
}

static void arp_in(struct port *port, int kind, const struct frame *frame, ns_t now)
{
	if (frame->destination_ip != port->config.local_ip)
		return;
	if (neighbour_learn(&port->next_hop, frame->source_ip, &frame->arp_sender, now)) {
		port->flow.peer = port->next_hop.mac;
		frame_template_init(&port->headers, &port->flow);
	}
	if (kind != FRAME_ARP_REQUEST)
		return;
	struct frame_flow back = port->flow;
	back.peer = frame->arp_sender;
	back.peer_ip = frame->source_ip;
	if (arp_out(port, FRAME_ARP_REPLY, &back))
		port->stats.arp_answered++;
}

static void ping_in(struct port *port, const struct frame *frame, const uint8_t *bytes)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(port->pool.rx);
	if (!mbuf)
		return;
	uint8_t *out = rte_pktmbuf_mtod(mbuf, uint8_t *);
	if (frame_out(port, mbuf, frame_pong(frame, bytes, out, rte_pktmbuf_tailroom(mbuf))))
		port->stats.ping_answered++;
}

/* ---- receiving ---- */

/* A memif peer may hand over anything: the chain is walked before it is believed. Gives the frame
 * in one piece, or NULL. */
static uint8_t *mbuf_frame(struct port *port, struct rte_mbuf *mbuf)
{
	uint64_t length = 0;
	unsigned segments = 0;
	for (const struct rte_mbuf *at = mbuf; at; at = at->next, segments++) {
		if ((uint32_t)at->data_off + at->data_len > at->buf_len || segments > BURST)
			return NULL;
		length += at->data_len;
	}
	if (segments != mbuf->nb_segs || length != mbuf->pkt_len)
		return NULL;
	if (segments > 1 && rte_pktmbuf_linearize(mbuf) < 0)
		return NULL;
	port->stats.linearised += segments > 1;
	return rte_pktmbuf_mtod(mbuf, uint8_t *);
}

static bool is_for_us(const struct port *port, const struct frame *frame)
{
	static const struct mac everyone = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
	return frame->vlan == port->config.vlan &&
	       (mac_equal(&frame->destination, &port->flow.local) ||
		mac_equal(&frame->destination, &everyone));
}

static bool is_our_path(const struct port *port, const struct frame *frame)
{
	return frame->destination_ip == port->config.local_ip &&
	       frame->destination_port == port->config.udp_port &&
	       frame->source_ip == port->config.peer_ip;
}

/* Whether the mbuf holds a datagram of our path; all else is answered or counted here. */
static bool take_frame(struct port *port, struct rte_mbuf *mbuf, struct packet *packet, ns_t now)
{
	struct frame frame;
	uint8_t *bytes = mbuf_frame(port, mbuf);
	int kind = bytes ? frame_parse(&frame, bytes, mbuf->pkt_len) : -EMSGSIZE;
	if (kind < 0)
		goto malformed;
	if (!is_for_us(port, &frame))
		goto not_ours;
	if (kind == FRAME_ARP_REQUEST || kind == FRAME_ARP_REPLY) {
		arp_in(port, kind, &frame, now);
		return false;
	}
	if (kind == FRAME_PING && frame.destination_ip == port->config.local_ip) {
		ping_in(port, &frame, bytes);
		return false;
	}
	if (kind != FRAME_DATAGRAM || !is_our_path(port, &frame))
		goto not_ours;
	port->stats.rx_packets++;
	port->stats.rx_bytes += mbuf->pkt_len;
	*packet = (struct packet){
		.datagram = bytes + frame.payload_offset,
		.length = frame.payload_length,
		.path = port->config.path,
	};
	return true;

malformed:
	if (kind == -EBADMSG)
		port->stats.rx_bad_checksum++;
	else
		port->stats.rx_bad_length++;
	return false;
not_ours:
	port->stats.rx_not_ours++;
	return false;
}

unsigned port_receive(struct port *port, struct packet *packet, unsigned max, ns_t now)
{
	unsigned count = 0;
	rte_pktmbuf_free_bulk(port->received, port->received_count);
	port->received_count = 0;
	if (!port->started)
		return 0;
	port->received_count =
		rte_eth_rx_burst(port->ethdev, 0, port->received, (uint16_t)min_u64(max, BURST));
	for (unsigned i = 0; i < port->received_count; i++)
		rte_prefetch0(rte_pktmbuf_mtod(port->received[i], void *));
	for (unsigned i = 0; i < port->received_count; i++)
		count += take_frame(port, port->received[i], &packet[count], now);
	return count;
}

/* ---- timers ---- */

static void link_look(struct port *port, ns_t now)
{
	struct rte_eth_link link = {0};
	bool was_up = port->stats.link_up;
	port->link_look_at = now + LINK_LOOK_EVERY_NS;
	port->stats.link_up = port->started && rte_eth_link_get_nowait(port->ethdev, &link) == 0 &&
			      link.link_status == RTE_ETH_LINK_UP;
	if (port->stats.link_up && !was_up)
		neighbour_link_up(&port->next_hop, now);
	if (port->stats.link_up || !was_up)
		return;
	backlog_drop(port);
	/* A server that is being killed still takes connections for a moment, to no end. */
	port->reconnect_at = now + RECONNECT_EVERY_NS;
}

/* memif never reconnects by itself, and its start fails while there is no server. A start that has
 * found one is let alone for long: a client that goes away before it was greeted leaves its server
 * with a closed descriptor among its sources of interrupts, over which EAL panics. */
static void reconnect(struct port *port, ns_t now)
{
	rte_pktmbuf_free_bulk(port->received, port->received_count);
	port->received_count = 0;
	if (port->started)
		rte_eth_dev_stop(port->ethdev);
	port->started = rte_eth_dev_start(port->ethdev) == 0;
	port->reconnect_at = now + (port->started ? LINK_WITHIN_NS : RECONNECT_EVERY_NS);
}

ns_t port_turn(struct port *port, ns_t now)
{
	if (now >= port->link_look_at)
		link_look(port, now);
	if (!port->stats.link_up) {
		if (port->capability.reconnects_by_restart && now >= port->reconnect_at)
			reconnect(port, now);
		return now + LINK_LOOK_EVERY_NS;
	}
	if (neighbour_asks(&port->next_hop, now)) {
		struct frame_flow ask = port->flow;
		ask.peer_ip = port->next_hop.ip;
		arp_out(port, FRAME_ARP_REQUEST, &ask);
	}
	if (port->backlog.head || port->stage_count)
		backlog_flush(port);
	/* Devices tell what they have sent when they are given more; in a pause we ask. */
	if (port->cells_held && port->capability.reads_by_address && now >= port->tidy_at) {
		port->tidy_at = now + TIDY_EVERY_NS;
		rte_eth_tx_done_cleanup(port->ethdev, 0, 0);
	}
	return port->backlog.head || port->stage_count ? now + RETRY_AFTER_NS
						       : port->next_hop.ask_at;
}

void port_stats(const struct port *port, struct port_stats *stats)
{
	struct rte_eth_stats device = {0};
	*stats = port->stats;
	stats->next_hop_known = port->next_hop.known;
	if (rte_eth_stats_get(port->ethdev, &device) == 0)
		stats->driver_missed = device.imissed + device.rx_nombuf + device.ierrors;
}

uint32_t port_datagram_bytes_max(const struct port *port)
{
	return port->datagram_bytes_max;
}
