//go:build race

package proxy

// raceEnabled: with the race detector, pools forget some of what is put back.
const raceEnabled = true
