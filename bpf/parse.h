/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What of a packet names its flow and moves its state. */
#ifndef TWINWALL_PARSE_H
#define TWINWALL_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>

#include "maps.h"

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

#endif
