//go:build unix && !linux

package proxy

import "sync/atomic"

// A splicer does nothing on systems without splice(2).
type splicer struct{}

func (s *splicer) splice(sink, source side, pace *pace, n int64, moved *int64, allRead *atomic.Bool) (ok, sourceFailed bool, err error) {
	return false, false, nil
}
