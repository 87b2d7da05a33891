//go:build race

package metrics

// raceEnabled: the race detector allocates, so allocations are not counted.
const raceEnabled = true
