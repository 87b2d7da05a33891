// Package sharedkeys makes replicas agree about values, by keys below a prefix in Consul's KV
// store.
//
//	keys := sharedkeys.New(sharedkeys.Options[Order]{Consul: client, Prefix: "orders", …})
//	keys.Resume()                  // follows Consul
//	keys.Put("nodes/n1/drain", order, nil)
//	for key, e := range keys.All() // what this replica has to use
//
// One rule settles conflicts: the last write that Consul has accepted counts, even if forgotten.
//
// # When a change is written
//
// A change of Put or Delete counts here at once. It is written with compare-and-set, and tried
// again every second until Consul has it or its condition says that it is void. So a change made
// while Consul is away, or refuses it, is written later, over what others have written meanwhile.
// A change of Propose counts only when Consul has accepted it. It is tried once, and is void if the
// key has changed since the last answer.
//
// A change counts until an answer of Consul has it or a later one: one that shows the key at that
// index or after it, or the answer to a query that began after Consul had accepted the change. An
// earlier answer does not undo it. A void change counts as long, so that no value from before it
// returns for a moment, but it is never later than what others have written.
//
// # What an answer means
//
// A key that an answer lacks was deleted: its value ends. A key with a value that cannot be used
// changes nothing: the last value stays in use.
//
// The exception: Consul has lost its state, and begins anew. The mark tells the two apart:
// the key "begun" below the prefix is there since the first value, and no replica deletes it. If
// an answer lacks the mark, and an earlier one had it, nothing was deleted: all values stay in use.
// Each replica writes the values that it knows and Consul lacks, and replaces none that is there.
// Then it writes the mark, in one transaction with a check that one of them is unchanged:
// if not, Consul has lost its state again. So no replica sees the mark without the values.
// A value that was ended while Consul lost its state may come back.
//
// # Versions
//
// Consul may also go back to an earlier state, from a backup with the mark. Then a replica writes
// what it has seen later again. So no older value beats a newer one, and nothing that has ended
// comes back.
//
// Each value has a version, in the flags of its key, and so has the mark. A writer reads both,
// and writes in one transaction that needs the mark unchanged. The new version is higher than both,
// than all that the replica has seen, and than the time in milliseconds. Whoever ends a value gives
// such a version to the mark in the same transaction. So versions have the order in which Consul
// has accepted the changes, whatever clocks say. The time makes a replica that has
// seen nothing later than a backup.
//
// So an answer shows what is from an earlier state:
//   - a value with a lower version than the replica has seen;
//   - a value that has ended: the replica lacks it, and its version is not above the highest one
//     seen of the mark;
//   - a missing value is lost, if the mark is not above its version and Consul is back: the mark is
//     lower, a value is older, or [consul.Answer.Forgot]. Else its key was deleted by hand.
//
// Values without a version, of an earlier sluice, count as Consul has them.
//
// A replica that finds keys of an earlier version, without the mark, writes it.
package sharedkeys
