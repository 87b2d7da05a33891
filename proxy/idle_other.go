//go:build !linux

package proxy

// An idleSet is always empty: see idle_linux.go.
type idleSet struct{}

func newIdleSet() (*idleSet, error)      { return &idleSet{}, nil }
func (s *idleSet) add(*clientConn) bool  { return false }
func (s *idleSet) take(*clientConn) bool { return false }
func (s *idleSet) run()                  {}
func (s *idleSet) close()                {}
