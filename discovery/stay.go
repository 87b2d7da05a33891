package discovery

import "time"

// Stay is how long what a registry has lost stays in use.
//
// A key or an instance that disappears while others stay was deleted: it is gone once that is
// confirmed. What disappears with the last one, or with the memory of the registry (its index
// went backwards, or it is another cluster, or its volume is not mounted), may be lost by accident.
// It stays in use for Stay, or until the registry has it again; where there is the key
// `allow_empty`, true ends that at once. So it is for instances (see [Guard], which names it
// probation, and adds that the first failure ends it; its time can be configured, and this is the
// default), documents and certificates, whatever the registry is.
const Stay = 10 * time.Minute
