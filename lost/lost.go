// Package lost is the one rule for what disappears from a registry in a way that may be an accident.
//
// A key or an instance that disappears while others stay was deleted: it is gone once that is
// confirmed. What disappears with the last one, or with the memory of the registry (its index
// went backwards, or it is another cluster, or its volume is not mounted), may be lost. It stays in
// use for [Stay], or until the registry has it again; where there is the key `allow_empty`, true
// ends that at once. So it is for instances (discovery.Guard, which names it probation, and adds
// that the first failure ends it), documents and certificates, whatever the registry is.
package lost

import "time"

// Stay is how long what a registry has lost stays in use. The time on probation of instances can
// be configured, and this is the default.
const Stay = 10 * time.Minute
