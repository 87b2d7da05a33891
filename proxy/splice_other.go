//go:build unix && !linux

package proxy

import "sync/atomic"

// splice does nothing on systems without splice(2).
func splice(sink, source side, pace *pace, n int64, moved *int64, allRead *atomic.Bool) (ok, sourceFailed bool, err error) {
	return false, false, nil
}

// A relaySplicer does nothing on systems without splice(2).
type relaySplicer struct{}

func (s *relaySplicer) splice(*relay) (client bool, err error) { return false, nil }
