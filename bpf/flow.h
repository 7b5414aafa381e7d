/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Life of a flow: creation, TCP state, renewal, and the sweep that ends it. */
#ifndef TWINWALL_FLOW_H
#define TWINWALL_FLOW_H

#include "parse.h"


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

#endif
