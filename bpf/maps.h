/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The maps, and what counts into them. */
#ifndef TWINWALL_MAPS_H
#define TWINWALL_MAPS_H

#include <linux/bpf.h>
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

#endif
