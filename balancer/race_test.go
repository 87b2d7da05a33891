//go:build race

package balancer

// raceEnabled: the race detector allocates, so allocations are not counted.
const raceEnabled = true
