// Package leader chooses the one instance of a service that leads, such as the primary of a database.
//
// # Who leads
//
// An instance claims to lead by a tag, by passing its checks, or because the value of a key of Consul's KV store names it.
// Of the instances in service that claim, there must be exactly one: it leads. If there are two, none leads, because
// nothing in a registry says which of them is wrong: not the time of a registration, which an instance that has
// missed its demotion may write again. If none in service claims, the same holds for those on probation, and
// then for those out of service: what claims alone keeps its connections, although it gets no new ones.
//
// # What the key may end
//
// An error, and an answer that ACLs have filtered, change nothing: the last leader stays. A value that names another
// leader or none is read once more in the mode "consistent", and counts then at once. A key that is gone because Consul
// has lost its state (its index went backwards) names the last leader for [Options.Keep], or until it has a value again. A key that
// somebody has locked and nobody holds any more names none, whatever its value is.
package leader
