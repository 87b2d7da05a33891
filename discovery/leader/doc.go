// Package leader chooses the instance of a service that leads, such as a database's primary.
//
// # Who leads
//
// An instance claims to lead by a tag, by passing its checks, or because a key of Consul's KV store
// names it. Exactly one of the instances in service must claim: it leads. If two do, none leads,
// because nothing in a registry says which is wrong. The time of a registration does not:
// an instance that has missed its demotion may register again. If none in service claims, the same
// holds for those on probation, and then for those out of service: a single claimant keeps its
// connections, but gets no new ones.
//
// # What the key may end
//
// An error, and an answer that ACLs have filtered, change nothing: the last leader stays.
// A value that names another leader or none is read once more in the mode "consistent", and then
// counts at once. If the key is gone because Consul has lost its state (its index went backwards),
// the last leader stays for [Options.Keep], or until there is a value again. A key that somebody
// has locked and nobody holds any more names none, whatever its value is.
package leader
