package balancer

import "time"

// epoch is where nanotime counts from.
var epoch = time.Now()

// nanotime returns the nanoseconds of the monotonic clock since epoch.
func nanotime() int64 { return int64(time.Since(epoch)) }
