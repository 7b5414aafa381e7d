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
 *    falls when the packet comes back. A flow settles under the same lock, when `queued` is 0 (or
 *    by force, when vemd knows that packets were lost on the way):
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
#include "flow.h"

char _license[] SEC("license") = "GPL";

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
