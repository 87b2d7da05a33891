// Package dns watches the instances of a service in DNS: SRV, A or AAAA records, also Consul's.
//
// # Queries
//
// sluice queries its servers itself, in their order, and not through the system's resolver,
// which hides the TTL of records, and over UDP gets a part of them. Consul's server cuts answers to
// fit in a datagram, without the flag TC (RFC 1035, section 4.1.1). So queries use TCP (RFC 7766),
// one kept connection for each server; UDP with an EDNS size of 1232 (RFC 6891) only while a server
// refuses TCP. In a datagram that may be cut, the absence of an instance counts after 8 answers in
// a row. Over TCP, Consul's server cuts at 1024 SRV records (4096 addresses) or 64 KiB, with others
// each time: such an answer adds instances, removes none, and is reported.
//
// A query is repeated after the smallest TTL of the records that were used, 1 s at least and
// 5 min at most, ± 10 %.
//
// # What DNS may take out of service
//
// [discovery.Guard] has the rules. An error, a timeout, SERVFAIL, REFUSED, an answer that is cut
// before its first record (TC) and one that cannot be understood change nothing. An answer that
// lacks instances is confirmed at once, by another server if there is one: an instance is gone if
// both lack it. NXDOMAIN, an answer without records (NODATA) and the SRV target "." (RFC 2782) are
// confirmed by seven more such answers, one a second: Consul answers NXDOMAIN also if its token for
// DNS may not read the service.
//
// # Instances
//
// An SRV record is an instance for each address of its target: the IPv4 addresses, or if there
// are none the IPv6 addresses. Its id is TARGET:PORT, so the order of records has no meaning. Of
// a record without an address in the answer, the target is queried; while this fails its last
// addresses stay in use. Records with a smaller priority are preferred: see
// [discovery.Instance.Priority]. If all records of a priority have the weight 0, each has 1; else
// one with 0 gets no traffic, as Consul means it.
//
// The id of an A or AAAA record is ADDRESS:PORT.
package dns
