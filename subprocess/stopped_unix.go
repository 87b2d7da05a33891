//go:build unix && !linux

package subprocess

// awaitStopped does not wait: a thread may go on for a moment.
func awaitStopped(int) error { return nil }
