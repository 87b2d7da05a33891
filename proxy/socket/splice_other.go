//go:build unix && !linux

package socket

import "sync/atomic"

// Splice does nothing on systems without splice(2).
func Splice(sink, source Side, pace *Pace, n int64, moved *int64, allRead *atomic.Bool) (ok, sourceFailed bool, err error) {
	return false, false, nil
}

// A relaySplicer does nothing on systems without splice(2).
type relaySplicer struct{}

func (s *relaySplicer) splice(*relay) (client bool, err error) { return false, nil }
