/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The ABI between the datapath and vemd: the layout of every map, every event and every command.
 * bins/vemd/src/datapath/abi.rs mirrors it and asserts the same sizes.
 *
 * Pins live below a directory named after TWINWALL_ABI_VERSION. Any change of a layout here is a
 * new version: programs and maps of two versions never meet.
 */
#ifndef TWINWALL_DATAPATH_H
#define TWINWALL_DATAPATH_H

#define TWINWALL_ABI_VERSION 1

/* Most flows of a host. 64,000 is what the original promises; the map is preallocated. */
#define FLOWS_MAX 65536
/* Most protected ports of a host. */
#define PORTS_MAX 64
/* Bytes of reports waiting for vemd: about 2,000. A full ring loses reports, never packets. */
#define REPORTS_BYTES (256 * 1024)

#define SECOND_NS 1000000000ULL
/* vemd renews its stamp each 100 ms; one this old means that vemd is not coming back by itself. */
#define LIVENESS_STALE_NS (5 * SECOND_NS)
/* An undecided flow; longer than vemd holds one, so that vemd always answers first. */
#define PENDING_NS (30 * SECOND_NS)
/* A dropped flow is asked for again after this, counted from the verdict. */
#define DENIED_NS (5 * SECOND_NS)
/* TCP without a finished handshake. */
#define TCP_OPENING_NS (30 * SECOND_NS)
/* TCP established and silent. Above the two hours of a default keepalive probe would be kinder,
 * but keeps dead flows too long; RFC 5382 REQ-5 asks for 2 h 4 min of NATs, which rewrite. */
#define TCP_ESTABLISHED_NS (3600 * SECOND_NS)
/* TCP closed by one side only. */
#define TCP_HALF_CLOSED_NS (600 * SECOND_NS)
/* TCP closed by both or reset: long enough for the last acknowledgements. */
#define TCP_CLOSED_NS (2 * SECOND_NS)
/* UDP seen one way only, and both ways (RFC 4787 REQ-5 asks for more than two minutes). */
#define UDP_ONE_WAY_NS (30 * SECOND_NS)
#define UDP_BOTH_WAYS_NS (180 * SECOND_NS)
/* ICMP echo. */
#define ICMP_NS (10 * SECOND_NS)

/* The sweep looks at each flow twice a second: a flow outlives its time by half a second at most.
 * At 65,536 flows one step is 2,600 of them, about half a millisecond. */
#define SWEEP_STEP_NS (SECOND_NS / 50)
#define SWEEP_STEPS 25
#define SWEEP_FLOWS_MIN 8
/* Tickets of flows: one each, and room for those of flows that were forgotten before their turn. */
#define TICKETS_MAX (2 * FLOWS_MAX)

/* Index into per-direction pairs. */
enum direction {
	FROM_VM = 0,
	TO_VM = 1,
};

enum flow_state {
	/* Undecided; its packets queue at the tap. */
	FLOW_PENDING = 1,
	/* Decided; packets that queued are still on their way, later ones queue behind them. */
	FLOW_DRAINING = 2,
	/* Decided; nothing queued. */
	FLOW_VERDICT = 3,
};

enum verdict {
	VERDICT_NONE = 0,
	VERDICT_PERMIT = 1,
	VERDICT_DROP = 2,
	VERDICT_RESET = 3,
};

enum tcp_state {
	TCP_NONE = 0,
	TCP_SYN_SEEN = 1,
	TCP_SYN_ACK_SEEN = 2,
	TCP_ESTABLISHED = 3,
	TCP_ONE_FIN = 4,
	TCP_CLOSED = 5,
};

enum fail_mode {
	FAIL_CLOSE = 0,
	FAIL_OPEN = 1,
};

/* Counters of a port; the order is the ABI. */
enum counter {
	COUNT_FROM_VM = 0,      /* packets seen from the VM */
	COUNT_TO_VM,            /* packets seen to the VM */
	COUNT_PASSED,           /* passed by a permit */
	COUNT_ARP,              /* passed as ARP */
	COUNT_UPCALLS,          /* flows created undecided */
	COUNT_QUEUED,           /* packets sent to the tap, first ones included */
	COUNT_REINJECTED,       /* packets that came back and passed */
	COUNT_DENIED,           /* dropped by a verdict */
	COUNT_SPOOFED,          /* dropped: another's source MAC */
	COUNT_NOT_OURS,         /* dropped: to another's or to a group MAC */
	COUNT_IPV6,             /* dropped */
	COUNT_ETHERTYPE,        /* dropped */
	COUNT_FRAGMENT,         /* dropped */
	COUNT_PROTOCOL,         /* dropped: not TCP, UDP or ICMP */
	COUNT_ICMP,             /* dropped: ICMP that belongs to no flow */
	COUNT_MALFORMED,        /* dropped: shorter than its headers */
	COUNT_MIDSTREAM,        /* dropped: TCP without an entry and not opening one */
	COUNT_REVERSE_OPEN,     /* dropped: the responder opens on a live flow's ports */
	COUNT_MAP_FULL,         /* dropped: no room for another flow */
	COUNT_FAIL_CLOSED,      /* dropped: vemd silent, port fails close */
	COUNT_FAIL_OPENED,      /* flows permitted: vemd silent, port fails open */
	COUNT_STRAY,            /* dropped: came back from the tap without a flow to pass by */
	COUNT_REPORTS_LOST,     /* reports that found the ring full */
	COUNTERS = 24,
};

struct flow_key {
	__u32 port;        /* ifindex of the protected port */
	__u8 vm_ip[4];
	__u8 remote_ip[4];
	__u8 vm_port[2];   /* network order; the identifier for ICMP echo */
	__u8 remote_port[2];
	__u8 protocol;
	__u8 zero[3];
};

struct flow {
	struct bpf_spin_lock lock; /* guards state, verdict, queued, and who may change them */
	__u32 queued;              /* packets between the redirect to the tap and their return */
	__u64 created_ns;          /* also names this life of the key */
	__u64 ticket;              /* names the entry's ticket for the sweep; outlives a renewal */
	__u64 decided_ns;
	__u64 last_seen_ns;
	__u64 generation;          /* 0: permitted by fail-open, to be asked for */
	__u64 epoch;               /* counter of the epoch that decided */
	__u64 packets[2];          /* by direction */
	__u64 bytes[2];
	__u32 next_sequence[2];    /* TCP: what follows the last byte sent, by direction */
	__u32 last_ack[2];         /* TCP: last acknowledgement sent, by direction */
	__u8 state;
	__u8 verdict;
	__u8 first_direction;
	__u8 tcp;
	__u8 fins;                 /* bit per direction */
	__u8 reported;             /* the close has been reported */
	__u8 zero[2];
};

/* A flow's turn in the sweep. */
struct ticket {
	struct flow_key key;
	__u32 zero;
	__u64 ticket;
};

struct sweeper {
	struct bpf_timer timer;
	__u64 tickets; /* in the queue, about */
};

struct port {
	__u32 tap;       /* ifindex */
	__u32 slot;      /* index of its counters */
	__u8 mac[6];
	__u8 fail_mode;
	__u8 zero;
};

struct tap {
	__u32 port;      /* ifindex */
	__u8 mac[6];
	__u8 zero[2];
};

struct port_counters {
	__u64 count[COUNTERS];
};

struct settings {
	__u32 abi_version;
	__u32 reinject_mark; /* random, not 0: set by the tap's program, cleared by the port's */
	__u32 upcall_mark;   /* random, not 0: lets a packet out to the tap */
	__u32 build;         /* checksum of the object whose programs are attached */
};

/* The highest epoch vemd has seen, for a quick restart while the kernel runs. */
struct highest_epoch {
	__u64 counter;
	__u8 node[32];
	__u64 incarnation;
};

enum report_kind {
	REPORT_CLOSED = 1,   /* both ends closed, or reset */
	REPORT_IDLE = 2,     /* a permitted flow fell silent */
	REPORT_UNDECIDED = 3 /* nobody decided in time */
};

struct report {
	struct flow_key key;
	__u32 kind;
	__u64 created_ns;
	__u64 packets[2];
	__u64 bytes[2];
	__u64 epoch;
	__u8 verdict;
	__u8 first_direction;
	__u8 zero[6];
};

enum operation {
	/* Pending -> draining, with a permit. */
	OP_DRAIN = 1,
	/* Draining -> verdict if nothing is queued any more, or by force. */
	OP_SETTLE = 2,
	/* Pending or draining -> verdict, with a drop or a reset. */
	OP_DENY = 3,
	/* Pending or dropped -> gone; a later packet asks anew. */
	OP_FORGET = 4,
	/* A verdict of an older generation is confirmed or turned. */
	OP_REVALIDATE = 5,
	/* Starts the sweep, or gives it this build's code; needs no flow. */
	OP_SWEEP = 6,
};

enum outcome {
	OUTCOME_DONE = 0,
	OUTCOME_ABSENT = 1,     /* no such flow, or another life of its key */
	OUTCOME_NOT_DRAINED = 2,
	OUTCOME_WRONG_STATE = 3,
	OUTCOME_MALFORMED = 4,
	OUTCOME_NO_MEMORY = 5,  /* for the timer, now: try again */
};

/* Runs flow_control by BPF_PROG_TEST_RUN: changes a flow in place, under its lock, which an
 * update of the map from user space cannot do (it would replace counters that move). */
struct flow_command {
	__u8 ethernet[16];  /* a frame must begin with a header; never read */
	struct flow_key key;
	__u32 operation;
	__u64 created_ns;   /* the life meant */
	__u64 generation;
	__u64 epoch;
	__u32 discarded;    /* queued packets of the flow that will not come back */
	__u8 verdict;
	__u8 force;
	__u8 zero[2];
};

#endif
