// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The datapath of a protected port.
 *
 *            port ingress (from VM)                      port egress (to VM)
 *   VM ====> port_from_vm ---- permit: NEXT ----> bridge ----> port_to_vm ====> VM
 *                |                                                 |
 *                | miss, pending, draining                         | the same
 *                v                                                 v
 *              tap (tap_out) ......... vemd holds, asks ......... tap
 *                                        |
 *              tap_in: mark, and redirect to the port: ingress if the source is the VM's MAC,
 *              else egress; the port's program then passes it by its flow entry
 *
 * A packet is redirected itself, never copied: it keeps its partial checksum and its GSO shape.
 *
 * Invariants:
 *  - A packet passes only by a flow entry with a permit that is draining (packets that came back
 *    from the tap) or settled (all others).
 *  - `queued` rises under the flow's lock, together with the check that the flow is unsettled, and
 *    falls when the packet comes back. A flow settles under the same lock only when `queued` is 0:
 *    no packet overtakes one that waited.
 *  - The reinjection mark never leaves a port's program, and none comes from a VM, because veth
 *    clears marks between namespaces.
 *  - No entry is evicted for another.
 *  - Each entry has one ticket in the queue, by which the sweep comes to it until it is due.
 *
 * Why a sweep, and not a bpf_timer in each flow: since Linux 6.18 the timer's memory is taken
 * without waiting for a lock, which fails most of the time under load (92 of 100 flows, measured),
 * and a flow without its timer would stay for ever. The one timer of the sweep is made at start,
 * where it can be tried again.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "datapath.h"

/* enum tcx_action_base, which headers before Linux 6.6 lack. */
#define NEXT (-1)
#define DROP 2
#define CLOCK_MONOTONIC 1
#define EEXIST 17

#define IP_FRAGMENT_BITS 0x3fff /* more fragments, or an offset */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS_MAX);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct tap);
} taps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct port_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} liveness SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, REPORTS_BYTES);
} reports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, TICKETS_MAX);
	__type(value, struct ticket);
} tickets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sweeper);
} sweeper SEC(".maps");

/* vemd's alone; no program reads it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct highest_epoch);
} highest_epoch SEC(".maps");

/* What is read of a packet before its flow is looked up. */
struct packet {
	struct flow_key key;
	__u32 sequence;
	__u32 ack;
	__u32 payload; /* TCP sequence space used, SYN and FIN included */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 opens; /* may begin a flow */
	__u8 quotes; /* an ICMP error; the key is the quoted flow's */
};

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__u8 source[4];
	__u8 destination[4];
};

struct tcp {
	__u8 source[2];
	__u8 destination[2];
	__be32 sequence;
	__be32 ack;
	__u8 offset;
	__u8 flags;
};

static __always_inline void count(const struct port *port, enum counter what)
{
	__u32 slot = port->slot;
	struct port_counters *own = bpf_map_lookup_elem(&counters, &slot);

	if (own)
		own->count[what]++;
}

static __always_inline int drop(const struct port *port, enum counter why)
{
	count(port, why);
	return DROP;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] &&
	       a[5] == b[5];
}

static __always_inline void copy2(__u8 *to, const __u8 *from)
{
	to[0] = from[0];
	to[1] = from[1];
}

static __always_inline void copy4(__u8 *to, const __u8 *from)
{
	__builtin_memcpy(to, from, 4);
}

/* ---- parsing ---------------------------------------------------------------------------- */

/* Orients addresses and ports to the VM. `outward`: the header travels away from the VM. */
static __always_inline void orient(struct flow_key *key, int outward, const struct ipv4 *ip,
				   const __u8 *source_port, const __u8 *destination_port)
{
	key->protocol = ip->protocol;
	if (outward) {
		copy4(key->vm_ip, ip->source);
		copy4(key->remote_ip, ip->destination);
		copy2(key->vm_port, source_port);
		copy2(key->remote_port, destination_port);
	} else {
		copy4(key->vm_ip, ip->destination);
		copy4(key->remote_ip, ip->source);
		copy2(key->vm_port, destination_port);
		copy2(key->remote_port, source_port);
	}
}

/* Echo: the identifier stands for the VM's port whichever way it goes. */
static __always_inline void orient_echo(struct flow_key *key, int outward, const struct ipv4 *ip,
					const __u8 *identifier)
{
	const __u8 none[2] = {};

	orient(key, outward, ip, none, none);
	copy2(key->vm_port, identifier);
}

/* An ICMP error quotes a packet that went the other way. 0, or the counter to drop under. */
static __always_inline int parse_quoted(struct __sk_buff *skb, __u32 at, int outward,
					struct packet *packet)
{
	struct ipv4 ip;
	__u8 head[8];

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return COUNT_MALFORMED;
	if ((ip.version_ihl & 0xf0) != 0x40 || (ip.version_ihl & 0xf) < 5)
		return COUNT_MALFORMED;
	if (bpf_skb_load_bytes(skb, at + (ip.version_ihl & 0xf) * 4, head, sizeof(head)))
		return COUNT_MALFORMED;
	packet->quotes = 1;
	if (ip.protocol == IPPROTO_TCP || ip.protocol == IPPROTO_UDP)
		orient(&packet->key, !outward, &ip, head, head + 2);
	else if (ip.protocol == IPPROTO_ICMP && (head[0] == ICMP_ECHO || head[0] == ICMP_ECHO_REPLY))
		orient_echo(&packet->key, !outward, &ip, head + 4);
	else
		return COUNT_ICMP;
	return 0;
}

static __always_inline int parse_icmp(struct __sk_buff *skb, __u32 at, int outward,
				      const struct ipv4 *ip, struct packet *packet)
{
	__u8 head[8];

	if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
		return COUNT_MALFORMED;
	packet->icmp_type = head[0];
	switch (head[0]) {
	case ICMP_ECHO:
		packet->opens = 1;
		orient_echo(&packet->key, outward, ip, head + 4);
		return 0;
	case ICMP_ECHO_REPLY:
		orient_echo(&packet->key, outward, ip, head + 4);
		return 0;
	case ICMP_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER:
		return parse_quoted(skb, at + sizeof(head), outward, packet);
	}
	return COUNT_ICMP;
}

static __always_inline int parse_tcp(struct __sk_buff *skb, __u32 at, int outward,
				     const struct ipv4 *ip, struct packet *packet)
{
	struct tcp tcp;
	__u32 headers, end;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return COUNT_MALFORMED;
	orient(&packet->key, outward, ip, tcp.source, tcp.destination);
	packet->tcp_flags = tcp.flags;
	packet->opens = (tcp.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
	packet->sequence = bpf_ntohl(tcp.sequence);
	packet->ack = bpf_ntohl(tcp.ack);
	headers = at + (tcp.offset >> 4) * 4;
	end = ETH_HLEN + bpf_ntohs(ip->length);
	packet->payload = end > headers ? end - headers : 0;
	if (tcp.flags & (TCP_SYN | TCP_FIN))
		packet->payload++;
	return 0;
}

static __always_inline int parse(struct __sk_buff *skb, int outward, struct packet *packet)
{
	struct ipv4 ip;
	__u8 two_ports[4];
	__u32 at;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return COUNT_MALFORMED;
	if ((ip.version_ihl & 0xf0) != 0x40 || (ip.version_ihl & 0xf) < 5)
		return COUNT_MALFORMED;
	if (ip.fragment & bpf_htons(IP_FRAGMENT_BITS))
		return COUNT_FRAGMENT;
	at = ETH_HLEN + (ip.version_ihl & 0xf) * 4;
	switch (ip.protocol) {
	case IPPROTO_TCP:
		return parse_tcp(skb, at, outward, &ip, packet);
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, at, two_ports, sizeof(two_ports)))
			return COUNT_MALFORMED;
		orient(&packet->key, outward, &ip, two_ports, two_ports + 2);
		packet->opens = 1;
		return 0;
	case IPPROTO_ICMP:
		return parse_icmp(skb, at, outward, &ip, packet);
	}
	return COUNT_PROTOCOL;
}

/* ---- life of a flow --------------------------------------------------------------------- */

static __always_inline void report(const struct flow_key *key, const struct flow *flow,
				   enum report_kind kind)
{
	struct report *event = bpf_ringbuf_reserve(&reports, sizeof(*event), 0);

	if (!event) {
		__u32 ifindex = key->port;
		struct port *port = bpf_map_lookup_elem(&ports, &ifindex);

		if (port)
			count(port, COUNT_REPORTS_LOST);
		return;
	}
	event->key = *key;
	event->kind = kind;
	event->created_ns = flow->created_ns;
	event->packets[0] = flow->packets[0];
	event->packets[1] = flow->packets[1];
	event->bytes[0] = flow->bytes[0];
	event->bytes[1] = flow->bytes[1];
	event->epoch = flow->epoch;
	event->verdict = flow->verdict;
	event->first_direction = flow->first_direction;
	__builtin_memset(event->zero, 0, sizeof(event->zero));
	bpf_ringbuf_submit(event, 0);
}

static __always_inline __u64 tcp_idle_ns(const struct flow *flow)
{
	switch (flow->tcp) {
	case TCP_ESTABLISHED:
		return TCP_ESTABLISHED_NS;
	case TCP_ONE_FIN:
		return TCP_HALF_CLOSED_NS;
	case TCP_CLOSED:
		return TCP_CLOSED_NS;
	}
	return TCP_OPENING_NS;
}

/* When the flow is to be forgotten if nothing more happens. */
static __always_inline __u64 due_ns(const struct flow_key *key, const struct flow *flow)
{
	if (flow->state != FLOW_VERDICT)
		return flow->created_ns + PENDING_NS;
	if (flow->verdict != VERDICT_PERMIT)
		return flow->decided_ns + DENIED_NS;
	if (key->protocol == IPPROTO_TCP)
		return flow->last_seen_ns + tcp_idle_ns(flow);
	if (key->protocol == IPPROTO_ICMP)
		return flow->last_seen_ns + ICMP_NS;
	if (flow->packets[0] && flow->packets[1])
		return flow->last_seen_ns + UDP_BOTH_WAYS_NS;
	return flow->last_seen_ns + UDP_ONE_WAY_NS;
}

static __always_inline struct sweeper *the_sweeper(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sweeper, &zero);
}

/* 0 if the flow of this ticket is due no more, so that the ticket goes with it. */
static __always_inline int outlives(struct ticket *ticket, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &ticket->key);

	if (!flow || flow->ticket != ticket->ticket)
		return 0;
	/* A ticket that cannot be put back would leave a flow for ever: the flow goes instead. */
	if (due_ns(&ticket->key, flow) > now && !bpf_map_push_elem(&tickets, ticket, 0))
		return 1;
	if (flow->state != FLOW_VERDICT)
		report(&ticket->key, flow, REPORT_UNDECIDED);
	else if (flow->verdict == VERDICT_PERMIT && !flow->reported)
		report(&ticket->key, flow, REPORT_IDLE);
	bpf_map_delete_elem(&flows, &ticket->key);
	return 0;
}

struct sweep {
	__u64 now;
	__u64 gone;
};

static int sweep_one(__u32 index, struct sweep *sweep)
{
	struct ticket ticket = {};

	if (bpf_map_pop_elem(&tickets, &ticket))
		return 1;
	if (!outlives(&ticket, sweep->now))
		sweep->gone++;
	return 0;
}

static int sweep_step(void *map, __u32 *key, struct sweeper *own)
{
	struct sweep sweep = { .now = bpf_ktime_get_ns() };
	__u64 all = own->tickets;
	__u64 some = all / SWEEP_STEPS + SWEEP_FLOWS_MIN;

	bpf_loop(some < all ? some : all, sweep_one, &sweep, 0);
	__sync_fetch_and_sub(&own->tickets, sweep.gone);
	bpf_timer_start(&own->timer, SWEEP_STEP_NS, 0);
	return 0;
}

static __always_inline int start_sweep(void)
{
	struct sweeper *own = the_sweeper();

	if (!own)
		return OUTCOME_ABSENT;
	/* Refused if an earlier build made it: then it is only given other code. */
	bpf_timer_init(&own->timer, &sweeper, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&own->timer, sweep_step) ||
	    bpf_timer_start(&own->timer, SWEEP_STEP_NS, 0))
		return OUTCOME_NO_MEMORY;
	return OUTCOME_DONE;
}

/* What of `packet` changes the flow's counters and TCP state; called once per packet, when it
 * passes. Racing packets may lose a count of the sequence numbers, which only delays a close. */
static __always_inline void track(struct flow *flow, const struct packet *packet, int direction,
				  __u32 bytes, __u64 now)
{
	int other = !direction;
	__u8 flags = packet->tcp_flags;
	__u8 before = flow->tcp;
	__u8 after = before;

	flow->last_seen_ns = now;
	__sync_fetch_and_add(&flow->packets[direction], 1);
	__sync_fetch_and_add(&flow->bytes[direction], bytes);
	if (packet->key.protocol != IPPROTO_TCP)
		return;
	if (flags & TCP_RST) {
		/* A forged reset must not cut a flow that its ends keep: believe only the
		 * sequence numbers that a real end can use (RFC 5961, 3.2). */
		if (packet->sequence == flow->next_sequence[direction] ||
		    packet->sequence == flow->last_ack[other])
			after = TCP_CLOSED;
	} else {
		flow->next_sequence[direction] = packet->sequence + packet->payload;
		if (flags & TCP_ACK)
			flow->last_ack[direction] = packet->ack;
		if ((flags & TCP_SYN) && (flags & TCP_ACK) && before == TCP_SYN_SEEN &&
		    direction != flow->first_direction)
			after = TCP_SYN_ACK_SEEN;
		else if (!(flags & TCP_SYN) && (flags & TCP_ACK) && before == TCP_SYN_ACK_SEEN &&
			 direction == flow->first_direction)
			after = TCP_ESTABLISHED;
		if ((flags & TCP_FIN) && before != TCP_CLOSED) {
			__u8 fins = flow->fins | (1 << direction);

			flow->fins = fins;
			after = fins == 3 ? TCP_CLOSED : TCP_ONE_FIN;
		}
	}
	if (after == before)
		return;
	flow->tcp = after;
	if (after == TCP_CLOSED && !flow->reported) {
		flow->reported = 1;
		report(&packet->key, flow, REPORT_CLOSED);
	}
}

static __always_inline int vemd_silent(__u64 now)
{
	__u32 zero = 0;
	__u64 *stamp = bpf_map_lookup_elem(&liveness, &zero);

	return !stamp || now > *stamp + LIVENESS_STALE_NS;
}

static __always_inline int to_tap(struct __sk_buff *skb, const struct port *port)
{
	__u32 zero = 0;
	struct settings *own = bpf_map_lookup_elem(&settings, &zero);

	if (!own)
		return DROP;
	count(port, COUNT_QUEUED);
	skb->mark = own->upcall_mark;
	return bpf_redirect(port->tap, 0);
}

/* Puts the packet behind those of its flow that wait. 0 if the flow has settled meanwhile. */
static __always_inline int enqueue(struct flow *flow)
{
	int waits = 0;

	bpf_spin_lock(&flow->lock);
	if (flow->state != FLOW_VERDICT) {
		flow->queued++;
		waits = 1;
	}
	bpf_spin_unlock(&flow->lock);
	return waits;
}

/* Begins a new life on the entry of a finished flow. 0 if another packet was faster. */
static __always_inline int renew(struct flow *flow, int direction, __u64 now)
{
	int renewed = 0;

	bpf_spin_lock(&flow->lock);
	if (flow->state == FLOW_VERDICT) {
		flow->state = FLOW_PENDING;
		flow->verdict = VERDICT_NONE;
		flow->queued = 1;
		flow->created_ns = now;
		flow->first_direction = direction;
		renewed = 1;
	}
	bpf_spin_unlock(&flow->lock);
	if (!renewed)
		return 0;
	flow->decided_ns = 0;
	flow->last_seen_ns = now;
	flow->generation = 0;
	flow->packets[0] = flow->packets[1] = 0;
	flow->bytes[0] = flow->bytes[1] = 0;
	flow->tcp = TCP_SYN_SEEN;
	flow->fins = 0;
	flow->reported = 0;
	return 1;
}

/* Creates the entry of an unknown flow. Returns it, or NULL with `*error`: -EEXIST if another
 * processor was faster. */
static __always_inline struct flow *create(const struct packet *packet, int direction, __u64 now,
					   int permitted, long *error)
{
	struct flow fresh = {};
	struct ticket ticket = {};
	struct sweeper *own = the_sweeper();

	ticket.key = packet->key;
	ticket.ticket = now;
	fresh.ticket = now;
	fresh.created_ns = now;
	fresh.last_seen_ns = now;
	fresh.first_direction = direction;
	fresh.tcp = packet->key.protocol == IPPROTO_TCP ? TCP_SYN_SEEN : TCP_NONE;
	if (permitted) {
		fresh.state = FLOW_VERDICT;
		fresh.verdict = VERDICT_PERMIT;
		fresh.decided_ns = now;
	} else {
		fresh.state = FLOW_PENDING;
		fresh.queued = 1;
	}
	*error = bpf_map_update_elem(&flows, &packet->key, &fresh, BPF_NOEXIST);
	if (*error)
		return 0;
	if (!own || bpf_map_push_elem(&tickets, &ticket, 0)) {
		bpf_map_delete_elem(&flows, &packet->key);
		return 0;
	}
	__sync_fetch_and_add(&own->tickets, 1);
	return bpf_map_lookup_elem(&flows, &packet->key);
}

/* ---- what happens to a packet ----------------------------------------------------------- */

static __always_inline int pass(struct __sk_buff *skb, const struct port *port, struct flow *flow,
				const struct packet *packet, int direction, __u64 now)
{
	count(port, COUNT_PASSED);
	track(flow, packet, direction, skb->len, now);
	return NEXT;
}

/* An ICMP error goes with the permitted flow it quotes, and changes nothing of it. */
static __always_inline int decide_error(const struct port *port, const struct flow *flow)
{
	if (!flow || flow->state != FLOW_VERDICT || flow->verdict != VERDICT_PERMIT)
		return drop(port, COUNT_ICMP);
	count(port, COUNT_PASSED);
	return NEXT;
}

/* A packet that came back from the tap. */
static __always_inline int decide_returned(struct __sk_buff *skb, const struct port *port,
					   struct flow *flow, const struct packet *packet,
					   int direction, __u64 now)
{
	int passes = 0;

	if (!flow)
		return drop(port, COUNT_STRAY);
	bpf_spin_lock(&flow->lock);
	if (flow->state != FLOW_PENDING) {
		if (flow->queued)
			flow->queued--;
		passes = flow->verdict == VERDICT_PERMIT;
	}
	bpf_spin_unlock(&flow->lock);
	if (!passes)
		return drop(port, COUNT_STRAY);
	count(port, COUNT_REINJECTED);
	return pass(skb, port, flow, packet, direction, now);
}

static __always_inline int decide_unknown(struct __sk_buff *skb, const struct port *port,
					  const struct packet *packet, int direction, __u64 now)
{
	struct flow *flow;
	long error = 0;
	int silent;

	if (!packet->opens)
		return drop(port, packet->key.protocol == IPPROTO_TCP ? COUNT_MIDSTREAM : COUNT_ICMP);
	silent = vemd_silent(now);
	if (silent && port->fail_mode != FAIL_OPEN)
		return drop(port, COUNT_FAIL_CLOSED);
	flow = create(packet, direction, now, silent, &error);
	if (!flow) {
		if (error != -EEXIST)
			return drop(port, COUNT_MAP_FULL);
		/* Another processor created it this instant: it is undecided, and we queue. */
		flow = bpf_map_lookup_elem(&flows, &packet->key);
		if (!flow || !enqueue(flow))
			return drop(port, COUNT_MAP_FULL);
		return to_tap(skb, port);
	}
	if (silent) {
		count(port, COUNT_FAIL_OPENED);
		return pass(skb, port, flow, packet, direction, now);
	}
	count(port, COUNT_UPCALLS);
	return to_tap(skb, port);
}

/* The responder may not open: a permit is for the direction that was asked for. */
static __always_inline int opens_in_reverse(const struct flow *flow, const struct packet *packet,
					    int direction)
{
	return packet->opens && packet->key.protocol != IPPROTO_UDP &&
	       direction != flow->first_direction;
}

static __always_inline int decide_settled(struct __sk_buff *skb, const struct port *port,
					  struct flow *flow, const struct packet *packet,
					  int direction, __u64 now)
{
	int reverse = opens_in_reverse(flow, packet, direction);
	int finished = packet->opens && flow->tcp == TCP_CLOSED;

	if (flow->verdict == VERDICT_PERMIT && reverse && !finished)
		return drop(port, COUNT_REVERSE_OPEN);
	if (finished || (reverse && flow->verdict != VERDICT_PERMIT)) {
		if (vemd_silent(now) && port->fail_mode != FAIL_OPEN)
			return drop(port, COUNT_FAIL_CLOSED);
		if (renew(flow, direction, now)) {
			count(port, COUNT_UPCALLS);
			return to_tap(skb, port);
		}
		return enqueue(flow) ? to_tap(skb, port) : drop(port, COUNT_DENIED);
	}
	if (flow->verdict != VERDICT_PERMIT)
		return drop(port, COUNT_DENIED);
	return pass(skb, port, flow, packet, direction, now);
}

/* Nobody will decide an undecided flow while vemd is silent. */
static __always_inline int decide_abandoned(struct __sk_buff *skb, const struct port *port,
					    struct flow *flow, const struct packet *packet,
					    int direction, __u64 now)
{
	if (port->fail_mode != FAIL_OPEN)
		return drop(port, COUNT_FAIL_CLOSED);
	bpf_spin_lock(&flow->lock);
	if (flow->state == FLOW_PENDING) {
		flow->verdict = VERDICT_PERMIT;
		flow->decided_ns = now;
	}
	flow->state = FLOW_VERDICT;
	flow->queued = 0;
	bpf_spin_unlock(&flow->lock);
	count(port, COUNT_FAIL_OPENED);
	return decide_settled(skb, port, flow, packet, direction, now);
}

static __always_inline int decide(struct __sk_buff *skb, const struct port *port,
				  const struct packet *packet, int direction, int returned)
{
	__u64 now = bpf_ktime_get_ns();
	struct flow *flow = bpf_map_lookup_elem(&flows, &packet->key);

	if (packet->quotes)
		return decide_error(port, flow);
	if (returned)
		return decide_returned(skb, port, flow, packet, direction, now);
	if (!flow)
		return decide_unknown(skb, port, packet, direction, now);
	if (flow->state == FLOW_VERDICT)
		return decide_settled(skb, port, flow, packet, direction, now);
	if (vemd_silent(now))
		return decide_abandoned(skb, port, flow, packet, direction, now);
	if (enqueue(flow))
		return to_tap(skb, port);
	return decide_settled(skb, port, flow, packet, direction, now);
}

/* True if the packet comes from the tap; takes its mark off. */
static __always_inline int take_mark(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *own;

	if (!skb->mark)
		return 0;
	own = bpf_map_lookup_elem(&settings, &zero);
	if (!own || skb->mark != own->reinject_mark)
		return 0;
	skb->mark = 0;
	return 1;
}

static __always_inline int filter(struct __sk_buff *skb, int direction)
{
	struct packet packet = {};
	struct ethhdr ethernet;
	__u32 ifindex = skb->ifindex;
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	int returned = take_mark(skb);
	int reason;

	/* Attached, but vemd has not said how: nothing passes. */
	if (!port)
		return DROP;
	count(port, direction == FROM_VM ? COUNT_FROM_VM : COUNT_TO_VM);
	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
		return drop(port, COUNT_MALFORMED);
	if (same_mac(ethernet.h_source, port->mac) != (direction == FROM_VM))
		return drop(port, COUNT_SPOOFED);
	/* A tag the kernel took off the frame is not to be seen in it. */
	if (skb->vlan_present)
		return drop(port, COUNT_ETHERTYPE);
	if (ethernet.h_proto == bpf_htons(ETH_P_ARP)) {
		count(port, COUNT_ARP);
		return NEXT;
	}
	if (ethernet.h_proto == bpf_htons(ETH_P_IPV6))
		return drop(port, COUNT_IPV6);
	if (ethernet.h_proto != bpf_htons(ETH_P_IP))
		return drop(port, COUNT_ETHERTYPE);
	/* What the bridge floods is not for this VM, and must not begin a flow here. */
	if (direction == TO_VM && !same_mac(ethernet.h_dest, port->mac))
		return drop(port, COUNT_NOT_OURS);
	packet.key.port = ifindex;
	reason = parse(skb, direction == FROM_VM, &packet);
	if (reason)
		return drop(port, reason);
	return decide(skb, port, &packet, direction, returned);
}

SEC("classifier")
int port_from_vm(struct __sk_buff *skb)
{
	return filter(skb, FROM_VM);
}

SEC("classifier")
int port_to_vm(struct __sk_buff *skb)
{
	return filter(skb, TO_VM);
}

/* What vemd writes to the tap goes into the port it belongs to. */
SEC("classifier")
int tap_in(struct __sk_buff *skb)
{
	struct ethhdr ethernet;
	__u32 zero = 0, ifindex = skb->ifindex;
	struct tap *tap = bpf_map_lookup_elem(&taps, &ifindex);
	struct settings *own = bpf_map_lookup_elem(&settings, &zero);

	if (!tap || !own || bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
		return DROP;
	skb->mark = own->reinject_mark;
	return bpf_redirect(tap->port, same_mac(ethernet.h_source, tap->mac) ? BPF_F_INGRESS : 0);
}

/* Only what a port's program sent reaches vemd; the host's own chatter on the tap does not. */
SEC("classifier")
int tap_out(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *own = bpf_map_lookup_elem(&settings, &zero);

	return own && skb->mark && skb->mark == own->upcall_mark ? NEXT : DROP;
}

/* ---- commands of vemd ------------------------------------------------------------------- */

static __always_inline int obey(struct flow *flow, const struct flow_command *command, __u64 now)
{
	int outcome = OUTCOME_WRONG_STATE;

	bpf_spin_lock(&flow->lock);
	if (flow->created_ns != command->created_ns) {
		outcome = OUTCOME_ABSENT;
		goto out;
	}
	flow->queued -= command->discarded < flow->queued ? command->discarded : flow->queued;
	switch (command->operation) {
	case OP_DRAIN:
		if (flow->state != FLOW_PENDING)
			break;
		flow->state = FLOW_DRAINING;
		flow->verdict = VERDICT_PERMIT;
		goto decided;
	case OP_SETTLE:
		if (flow->state != FLOW_DRAINING)
			break;
		outcome = OUTCOME_NOT_DRAINED;
		if (flow->queued && !command->force)
			break;
		flow->queued = 0;
		flow->state = FLOW_VERDICT;
		outcome = OUTCOME_DONE;
		break;
	case OP_DENY:
		if (flow->state == FLOW_VERDICT)
			break;
		flow->queued = 0;
		flow->state = FLOW_VERDICT;
		flow->verdict = command->verdict;
		goto decided;
	case OP_REVALIDATE:
		if (flow->state != FLOW_VERDICT)
			break;
		flow->verdict = command->verdict;
		goto decided;
	}
	goto out;
decided:
	flow->decided_ns = now;
	flow->generation = command->generation;
	flow->epoch = command->epoch;
	outcome = OUTCOME_DONE;
out:
	bpf_spin_unlock(&flow->lock);
	return outcome;
}

SEC("classifier")
int flow_control(struct __sk_buff *skb)
{
	struct flow_command command;
	struct flow *flow;
	__u64 now = bpf_ktime_get_ns();

	if (bpf_skb_load_bytes(skb, 0, &command, sizeof(command)))
		return OUTCOME_MALFORMED;
	if (command.operation == OP_SWEEP)
		return start_sweep();
	flow = bpf_map_lookup_elem(&flows, &command.key);
	if (!flow)
		return OUTCOME_ABSENT;
	if (command.operation == OP_FORGET) {
		if (flow->created_ns != command.created_ns)
			return OUTCOME_ABSENT;
		if (flow->state == FLOW_DRAINING || flow->verdict == VERDICT_PERMIT)
			return OUTCOME_WRONG_STATE;
		bpf_map_delete_elem(&flows, &command.key);
		return OUTCOME_DONE;
	}
	return obey(flow, &command, now);
}
