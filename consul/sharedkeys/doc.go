// Package sharedkeys makes replicas agree about values, by keys of Consul's KV store below a prefix.
//
//	keys := sharedkeys.New(sharedkeys.Options[Order]{Consul: client, Prefix: "sluice-orders/edge", Decode: parse, …})
//	keys.Resume()                  // follows Consul
//	keys.Put("nodes/n1/drain", order, nil)
//	for key, e := range keys.All() // what this replica has to use
//
// One rule settles conflicts: the last write that Consul has accepted counts, also if Consul forgets it.
//
// # When a change is written
//
// A change of Put or Delete counts here at once. It is written with compare-and-set, and tried again
// every second until Consul has it or its condition says that it is void. So a change that is made
// while Consul is away, or refuses it, is written later, over what others have written meanwhile. A
// change of Propose counts only when Consul has accepted it, is void if the key has changed since the
// last answer, and is tried once.
//
// A change counts until an answer of Consul has it or a later one: one that shows the key at that
// index or after it, or the answer to a query that began after Consul had accepted the change. An
// earlier answer does not undo it.
//
// # What an answer means
//
// A key that an answer lacks was deleted: its value ends. A key with a value that cannot be used
// changes nothing: the last value stays in use.
//
// There is one exception: Consul has lost its state, and begins anew. The key "begun" below the prefix
// tells the two apart. It is there since the first value, and no replica deletes it. If an answer
// lacks it, and an earlier one had it, nothing was deleted: all values stay in use. Each replica
// writes the values that it knows and Consul lacks, and replaces none that is there. Then
// it writes the mark, in one transaction with a look whether one of them is still as it was: if not,
// Consul has lost its state again. So no replica sees the mark without the values. A value that was
// ended while Consul lost its state may come back.
//
// # Versions
//
// Consul may also be back at an earlier state: an operator has restored a backup, which has the mark. What this replica has
// seen later is then written again, so an older value never beats a newer one, and nothing ended comes back.
//
// Each value has a version, in the flags of its key, and so has the mark. Whoever writes a value reads both first, and
// writes in one transaction that needs the mark unchanged: the version is higher than both, than all that the replica has seen,
// and than the time in milliseconds. Whoever ends a value gives such a version to the mark, in the same transaction. So
// the order of versions is the order in which Consul has accepted the changes, and clocks that differ do not
// change it. The time lets a replica that has seen nothing be later than what was before a backup.
//
// So an answer shows what is from an earlier state: a value with a lower version than the replica has seen; a value that the
// replica does not have, and whose version is not above the highest one that it has seen of the mark, has ended since; and one
// that the answer lacks is lost, if the mark is not above that version and something shows that Consul is back: the mark is lower, a
// value is older, or [consul.Answer.Forgot]. Without such a sign the key was deleted by hand. Values without a version, of an
// earlier sluice, count as Consul has them.
//
// A replica that finds keys of an earlier version, without the mark, writes it.
package sharedkeys
